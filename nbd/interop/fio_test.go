//go:build interop

package interop

import (
	"testing"

	"sluice/block"
	"sluice/internal/lab"
	"sluice/nbd"
)

// TestFioVerify writes blocks of mixed sizes at random, with trims between them,
// and reads back checksums.
func TestFioVerify(t *testing.T) {
	lab.Need(t, "fio")
	for name, dev := range map[string]block.Device{
		"file": openFile(t, emptyImage(t, 64*mib), block.OpenOptions{}), "mem": newMem(t, 64*mib),
	} {
		socket := serve(t, nbd.ServerConfig{}, &nbd.Export{Device: dev})
		common := []string{
			"--name=verify", "--ioengine=nbd", "--uri=" + uri(socket), "--size=64M", "--verify=crc32c", "--verify_fatal=1",
			"--do_verify=1", "--verify_state_save=0", "--randseed=7", "--group_reporting", "--output-format=terse",
		}
		for pattern, args := range map[string][]string{
			"random": {"--rw=randwrite", "--bsrange=4k-256k", "--blockalign=4k", "--iodepth=32"},
			"mixed":  {"--rw=randrw", "--rwmixread=30", "--bssplit=512/30:4k/40:64k/20:1m/10", "--blockalign=512", "--iodepth=16", "--io_size=64M"},
			// fio sends a block's trim and its write together otherwise, which have
			// no order then.
			"trims":    {"--rw=randtrimwrite", "--bs=16k", "--iodepth=16", "--serialize_overlap=1"},
			"large":    {"--rw=write", "--bs=4m", "--iodepth=4"},
			"flushing": {"--rw=randwrite", "--bs=8k", "--iodepth=8", "--fsync=16", "--io_size=8M"},
		} {
			t.Run(name+" "+pattern, func(t *testing.T) { lab.Run(t, "fio", append(args, common...)...) })
		}
	}
}
