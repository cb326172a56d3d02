# Runs a program of another root file system on a lab machine: `enter.sh ROOT LAB NODE PROGRAM…`. The root is made on first use and stays
# for as long as the machine's mounts do; what the program writes outside the machine's own folders goes into an overlay there.
set -e
lower=$1 lab=$2 dir=$3
shift 3
root=$dir/engine/root
if ! mountpoint -q "$root"; then
    mkdir -p "$root" "$dir/engine/upper" "$dir/engine/work"
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/engine/upper,workdir=$dir/engine/work" "$root"
    mkdir -p "$root$lab" "$root/etc/docker"
    for shared in /proc /sys /dev /run /etc/docker; do
        mount --rbind "$shared" "$root$shared"
    done
    # Not what is mounted below it: that would be this very root.
    mount --bind "$lab" "$root$lab"
    cp "$dir/resolv.conf" "$root/etc/resolv.conf"
fi
exec chroot "$root" "$@"
