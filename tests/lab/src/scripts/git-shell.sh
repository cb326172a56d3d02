#!/bin/sh
# What sshd runs for every login: git's two services on the lab's repositories, and nothing else. `git-shell.sh FOLDER`.
[ -s "$1/fault" ] && { echo "the lab's git server is broken on purpose" >&2; exit 1; }
case $SSH_ORIGINAL_COMMAND in
    git-upload-pack\ *|git-receive-pack\ *) ;;
    *) echo "only git is served here" >&2; exit 1 ;;
esac
root=$1
eval "set -- $SSH_ORIGINAL_COMMAND"
exec git "${1#git-}" "$root/${2#/}"
