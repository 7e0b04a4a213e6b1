# Writes its disk and verifies it, cycle by cycle, until a line comes on the console; then verifies all that it wrote.
# A cycle is one synced write of 64 KiB and a read of it from the disk. Each prints "begin N" and then "cycle N CS", CS
# being hundredths of a second, which is what the kernel's uptime is told in. Beside that, small writes are in flight all
# the time, each of which puts there what is there already.
disk=${disk:-/dev/vda}
slots=${slots:-96}
[ "$(blockdev --getsize64 $disk)" -ge $((slots * 65536 + 1048576)) ] || { echo "$disk is too small"; exit 1; }
sum() { sha256sum | cut -d' ' -f1; }
# Each cycle has other data than all before: random once, and its number in front.
head -c 65024 /dev/urandom >/tmp/noise
data() { printf '%-512d' $1; cat /tmp/noise; }
now() { read -r up _ </proc/uptime; cs=${up%.*}${up#*.}; }
slot() { dd if=$disk bs=64k skip=$1 count=1 iflag=direct 2>/dev/null | sum; }
small() { dd if=/tmp/small of=$disk bs=4k seek=$((slots * 16)) oflag=direct conv=notrunc 2>/tmp/smallerr; }
smallsum() { dd if=$disk bs=64k skip=$slots count=16 iflag=direct 2>/dev/null | sum; }
head -c 1048576 /dev/urandom >/tmp/small
small
# A background job has no input unless it is told.
(read -r _ </dev/console; : >/tmp/stop) &
(while [ ! -e /tmp/stop ]; do small || { cp /tmp/smallerr /tmp/failed; break; }; done; : >/tmp/smalldone) &
n=0
echo "load begins"
while [ ! -e /tmp/stop ]; do
  n=$((n + 1)) at=$((n % slots))
  data $n >/tmp/data
  want=$(sum </tmp/data)
  echo "begin $n"
  now; began=$cs
  dd if=/tmp/data of=$disk bs=64k seek=$at conv=fsync,notrunc oflag=direct 2>/tmp/err || { echo "cycle $n: write failed: $(cat /tmp/err)"; exit 1; }
  got=$(slot $at)
  now
  [ "$got" = "$want" ] || { echo "cycle $n: read $got, wrote $want"; exit 1; }
  echo $want >/tmp/sum$at
  echo "cycle $n $((cs - began))"
  [ ! -e /tmp/failed ] || { echo "cycle $n: small writes failed: $(cat /tmp/failed)"; exit 1; }
  # One of the others, which may have been written by an earlier server.
  at=$(((n * 7 + 3) % slots))
  [ ! -e /tmp/sum$at ] || [ "$(slot $at)" = "$(cat /tmp/sum$at)" ] || { echo "cycle $n: slot $at is not what was written"; exit 1; }
done
while [ ! -e /tmp/smalldone ]; do sleep 0.1; done
[ ! -e /tmp/failed ] || { echo "small writes failed: $(cat /tmp/failed)"; exit 1; }
at=0 verified=0
while [ $at -lt $slots ]; do
  if [ -e /tmp/sum$at ]; then
    [ "$(slot $at)" = "$(cat /tmp/sum$at)" ] || { echo "slot $at is not what was written"; exit 1; }
    verified=$((verified + 1))
  fi
  at=$((at + 1))
done
[ "$(smallsum)" = "$(sum </tmp/small)" ] || { echo "the small writes are not there"; exit 1; }
errors=$(dmesg | grep -ci 'I/O error') || true
echo "load ends: $n cycles, $verified slots verified, $errors I/O errors"
[ $errors -eq 0 ] || { dmesg | grep -i 'I/O error'; exit 1; }
