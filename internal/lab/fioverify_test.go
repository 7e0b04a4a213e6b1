package lab

import (
	"strings"
	"testing"
	"time"
)

func TestFioArgs(t *testing.T) {
	const rest = " --name=verify --thread --rw=randwrite --size=67108864 --bs=16384 --iodepth=16 --serialize_overlap=1 --fsync=256 " +
		"--loops=1000000 --runtime=1500ms --verify=crc32c --verify_backlog=256 --verify_fatal=1 --verify_state_save=0 " +
		"--eta=always --eta-newline=1 --output-format=json --output=/r"
	for _, c := range []struct {
		cfg  FioConfig
		want string
	}{
		{FioConfig{URI: "nbd+unix:///vol?socket=/s"}, "--ioengine=nbd --uri=nbd+unix:///vol?socket=/s" + rest},
		{FioConfig{File: "/m/a", Engine: "psync"}, "--ioengine=psync --direct=1 --filename=/m/a" + rest},
		{FioConfig{File: "/m/a:b"}, `--ioengine=libaio --direct=1 --filename=/m/a\:b` + rest},
	} {
		c.cfg.Runtime = 1500 * time.Millisecond
		if got := strings.Join(c.cfg.args("/r"), " "); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestParseFioReport(t *testing.T) {
	const good = `nbd: connected to NBD server
{
 "jobs": [{"error": 0,
  "read": {"total_ios": 20, "clat_ns": {"max": 3000000}},
  "write": {"total_ios": 30, "clat_ns": {"max": 5000000}},
  "sync": {"total_ios": 2, "lat_ns": {"max": 7000000}}}]
}`
	got, err := parseFioReport([]byte(good))
	want := FioReport{
		Writes: 30, Reads: 20, Flushes: 2,
		LongestWrite: 5 * time.Millisecond, LongestRead: 3 * time.Millisecond, LongestFlush: 7 * time.Millisecond,
	}
	if err != nil || got != want || got.Longest() != 7*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"no job":        "{\n}",
		"an error":      strings.Replace(good, `"error": 0`, `"error": 5`, 1),
		"nothing read":  strings.Replace(good, "20", "0", 1),
		"never flushed": strings.Replace(good, `"total_ios": 2,`, `"total_ios": 0,`, 1),
	} {
		if r, err := parseFioReport([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
