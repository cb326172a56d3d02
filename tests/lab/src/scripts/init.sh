# The first process of a lab machine: `init.sh NAME FOLDER`. It lives in the machine's own mount, host name and PID namespaces,
# and all its processes die with it.
name=$1 dir=$2
# The lab says "go" when it has noted this process, so that a killed lab leaves nobody behind that it does not know.
read -r go || exit 1
set -e
hostname "$name"
mount --bind "$dir/etc-docker" /etc/docker
resolv=$(readlink -f /etc/resolv.conf)
case $resolv in
    /run/*) mkdir -p "$dir/run${resolv#/run}"; rmdir "$dir/run${resolv#/run}"; cp "$dir/resolv.conf" "$dir/run${resolv#/run}" ;;
    *) mount --bind "$dir/resolv.conf" "$resolv" ;;
esac
[ -f "$dir/passwd" ] && mount --bind "$dir/passwd" /etc/passwd
[ -f "$dir/shadow" ] && mount --bind "$dir/shadow" /etc/shadow
mount --bind "$dir/run" /run
echo ready
exec </dev/null >/dev/null 2>&1
set +e
# Orphans end up here; `wait` reaps them.
while :; do sleep 3600 & wait; done
