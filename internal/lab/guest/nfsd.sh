# The kernel's NFS server, v4 only, on the xfs of /dev/vda, from port 2049. What nfs-utils' daemons would
# answer the kernel when it asks who may do what is told it beforehand.
for m in failover net_failover virtio_net libcrc32c xfs sunrpc grace lockd nfs_acl auth_rpcgss nfsd; do
  insmod /mod/$m.ko
done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
mkdir /srv
mount -t xfs /dev/vda /srv
mkdir -p /srv/export /srv/clients
chmod 777 /srv /srv/export
mount -t nfsd nfsd /proc/fs/nfsd
cd /proc/fs/nfsd
echo "-3 +4 +4.0 +4.1 +4.2" >versions
echo ${block:-1048576} >max_block_size
echo ${lease:-10} >nfsv4leasetime
echo ${grace:-10} >nfsv4gracetime
echo /srv/clients >nfsv4recoverydir # who may claim state after a power cut
echo "tcp 2049" >portlist
# tell CACHE LINE: one write for one line. Every client is the user network's gateway. The flags are "insecure" (any
# source port), "no_subtree_check" and "fsid=0", which makes /srv the root.
tell() { printf '%s\n' "$2" >/proc/net/rpc/$1/channel; }
tell auth.unix.ip "nfsd 10.0.2.2 2147483647 clients"
tell nfsd.fh 'clients 1 \x00000000 2147483647 /srv'
tell nfsd.export "clients /srv 2147483647 $((0x2 | 0x400 | 0x2000)) 65534 65534 0"
echo ${threads:-4} >threads
# Kernels that keep no such folder do not end it before its time.
[ -n "$keepgrace" ] || echo Y >v4_end_grace || sleep ${grace:-10}
cat versions
echo "nfsd is up"
# Until the machine is killed, or its console says so.
read -r _ </dev/console
echo 0 >threads
cd /
umount /srv || :
