# Writes the guest's disk, reads it back through a cold cache, discards a part of it, and says how fast that went.
disk=${disk:-/dev/vda}
[ "$(blockdev --getsize64 $disk)" -ge 67108864 ] || { echo "$disk is smaller than 64 MiB"; exit 1; }
cold() { sync; echo 3 >/proc/sys/vm/drop_caches; }
sum() { sha256sum | cut -d' ' -f1; }
# timed MIB WHAT COMMAND...: how long it took, and MiB per second.
timed() {
  mib=$1 what=$2
  shift 2
  read -r start _ </proc/uptime
  "$@" 2>/tmp/err || { cat /tmp/err; return 1; }
  read -r end _ </proc/uptime
  echo "$mib $start $end" | awk -v what="$what" '{ t = $3 - $2; if (t < 0.01) t = 0.01
    printf "guest: %-28s %4d MiB in %5.2f s, %6.1f MiB/s\n", what, $1, t, $1 / t }'
}

timed 56 "sequential write, synced" dd if=/dev/zero of=$disk bs=1M count=56 conv=fsync,notrunc
cold
timed 56 "sequential read" dd if=$disk of=/dev/null bs=1M count=56

# Random data at three places must come back.
head -c 4194304 /dev/urandom >/tmp/data
want=$(sum </tmp/data)
for at in 4 16 40; do
  dd if=/tmp/data of=$disk bs=1M seek=$at conv=fsync,notrunc 2>/dev/null
done
# Small blocks beside each other, each with a sync of its own.
for i in 1 2 3 4 5 6 7 8; do
  printf 'block %08d' $i | dd of=$disk bs=4k seek=$((56 * 256 + i)) conv=sync,fsync,notrunc 2>/dev/null
done
cold
for at in 4 16 40; do
  got=$(dd if=$disk bs=1M skip=$at count=4 2>/dev/null | sum)
  [ "$got" = "$want" ] || { echo "at $at MiB: read $got, wrote $want"; exit 1; }
done
for i in 1 2 3 4 5 6 7 8; do
  got=$(dd if=$disk bs=4k skip=$((56 * 256 + i)) count=1 2>/dev/null | head -c 14)
  [ "$got" = "$(printf 'block %08d' $i)" ] || { echo "small block $i: read '$got'"; exit 1; }
done
echo "guest: 3 x 4 MiB and 8 x 4 KiB read back as written"

blkdiscard -o 0 -l 16777216 $disk
cold
got=$(dd if=$disk bs=1M skip=16 count=4 2>/dev/null | sum)
[ "$got" = "$want" ] || { echo "the discard went too far: read $got, wrote $want"; exit 1; }
echo "guest: discarded 16 MiB, and no more"
