# Removes a lab: everything its state file names, and nothing else.
#
#   teardown.sh STATE          tear down now
#   teardown.sh STATE --wait   tear down when standard input ends, that is when the lab's owner is gone, however it went
#
# A process is killed only when its start time is the noted one, and only in the boot in which it was noted.
state=$1
# Standard output may be the lock: it is kept open, and never written to.
exec 9>&1 >&2
[ "${2-}" = --wait ] && { trap '' HUP INT TERM; cat >/dev/null; }
[ -f "$state" ] || exit 0

complain() { echo "lab teardown: $*" >&2; failed=1; }
failed=0

same_boot() { grep -qx "boot $(cat /proc/sys/kernel/random/boot_id)" "$state"; }

# Succeeds while process $1, started at $2 (clock ticks since boot), has not ended.
lives() {
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    set -- "$2" ${stat##*) }
    [ "${21}" = "$1" ] && [ "$2" != Z ]
}

noted() { sed -n "s/^$1 //p" "$state"; }

if same_boot; then
    # Each of these is the first process of a PID namespace: the kernel ends all others with it, and lets it go after them.
    noted pid | while read -r pid start what; do
        lives "$pid" "$start" && kill -KILL "$pid"
    done
    tries=0
    noted pid | while read -r pid start what; do
        while lives "$pid" "$start"; do
            tries=$((tries + 1))
            [ "$tries" -gt 300 ] && { echo "process $pid ($what) does not end" >&2; exit 1; }
            sleep 0.1
        done
    done || complain "some processes are still there"

    noted netns | while read -r name; do
        [ -e "/run/netns/$name" ] && ip netns delete "$name"
    done
    noted link | while read -r name; do
        ip link show dev "$name" >/dev/null 2>&1 && ip link delete dev "$name"
    done
    noted iptables | sort -u | while read -r rule; do
        # shellcheck disable=SC2086 # a rule is a list of words
        while iptables -w -C $rule 2>/dev/null; do iptables -w -D $rule || break; done
    done
    noted cgroup | while read -r name; do
        for top in "/sys/fs/cgroup/$name" /sys/fs/cgroup/*/"$name"; do
            [ -d "$top" ] && find "$top" -depth -type d -exec rmdir {} +
        done
    done
fi

dir=$(noted dir)
# The marker says that the lab made this folder: a mistyped LAB_DIR must not cost anybody theirs.
if [ -n "$dir" ] && [ -f "$dir/.swarmkeeper-lab" ]; then
    tries=0
    while mounts=$(awk -v d="$dir/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r) && [ -n "$mounts" ]; do
        for mount in $mounts; do umount "$mount" 2>/dev/null || umount -l "$mount"; done
        tries=$((tries + 1))
        [ "$tries" -gt 10 ] && { complain "cannot unmount $mounts"; break; }
    done
    # The state goes last, so that an interrupted teardown can be repeated.
    if [ "$failed" = 0 ]; then
        find "$dir" -mindepth 1 -maxdepth 1 ! -name state ! -name .swarmkeeper-lab -exec rm -rf --one-file-system {} + || complain "cannot empty $dir"
    fi
    [ "$failed" = 0 ] && rm -rf "$dir"
fi
[ "$failed" = 0 ] && rm -f "${LAB_TEARDOWN_LOG-}"
exit "$failed"
