# Becomes a program of another root file system on a lab machine: `enter.sh ROOT LAB NODE PROGRAM…`, in a mount namespace of its own.
# What it writes outside the lab's folders goes into an overlay, a new one each time.
set -e
lower=$1 lab=$2 node=$3
shift 3
own=$node/engine/$$ root=$node/engine/$$/root
mkdir -p "$root" "$own/upper" "$own/work"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$own/upper,workdir=$own/work" "$root"
mkdir -p "$root$lab" "$root/etc/docker" "$root/old"
cp "$node/resolv.conf" "$root/etc/resolv.conf"
for shared in /proc /sys /dev /run /etc/docker; do
    mount --rbind "$shared" "$root$shared"
done
# Not what is mounted below it: that would be this very root.
mount --bind "$lab" "$root$lab"
# Not chroot: whoever enters a container's mount namespace, as `docker exec` does, starts at the namespace's own root.
cd "$root"
pivot_root . old
umount -l /old
exec "$@"
