package suite

import (
	"slices"
	"strings"
	"testing"
)

func TestSelect(t *testing.T) {
	ws, err := Select("rr16,sr1")
	if err != nil || len(ws) != 2 || ws[0].Name != "sr1" || ws[1].Name != "rr16" {
		t.Errorf("got %v, %v", ws, err)
	}
	if _, err := Select("rr16,rr17"); err == nil || !strings.Contains(err.Error(), `unknown workload "rr17"`) {
		t.Errorf("got %v", err)
	}
	all, err := Select("")
	if err != nil || len(all) != len(Workloads()) {
		t.Errorf("got %d, %v", len(all), err)
	}
}

func TestFioArgs(t *testing.T) {
	ws, err := Select("mx32,sr4x4,rr16,rr1,sw4")
	if err != nil {
		t.Fatal(err)
	}
	const tail = " --time_based --runtime=1200ms --norandommap --thread --group_reporting --output-format=json"
	want := []string{
		"--name=rr1 --ioengine=nbd --uri=nbd+unix:///vol?socket=/s --rw=randread --bs=4k --iodepth=1 --numjobs=1 --size=64" + tail,
		"--name=rr16 --ioengine=io_uring --filename=/d --invalidate=0 --rw=randread --bs=4k --iodepth=16 --numjobs=1 --size=64" + tail,
		"--name=sw4 --ioengine=libaio --direct=1 --filename=/d --invalidate=0 --rw=write --bs=1m --iodepth=4 --numjobs=1 --size=64" + tail,
		"--name=mx32 --ioengine=nbd --uri=nbd+unix:///?socket=/s --rw=randrw --bs=4k --iodepth=32 --numjobs=1 --rwmixread=70 --size=64" + tail,
		"--name=sr4x4 --ioengine=nbd --uri=nbd+unix:///?socket=/s --rw=read --bs=1m --iodepth=1 --numjobs=4 --size=16 --offset_increment=16" + tail,
	}
	for i, w := range ws {
		at := target{socket: "/s", size: "64", part: "16", runtime: "1200ms"}
		switch w.Name {
		case "rr16":
			at.file = "/d"
		case "sw4":
			at.file, at.direct = "/d", true
		case "rr1":
			at.export = "vol"
		}
		if got := strings.Join(w.fioArgs(at), " "); got != want[i] {
			t.Errorf("got  %s\nwant %s", got, want[i])
		}
	}
}

// Depth divides evenly among the connections, or a column would not be what its title says.
func TestWorkloadsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range Workloads() {
		if seen[w.Name] || w.Title == "" || w.Command == "" {
			t.Errorf("workload %+v", w)
		}
		seen[w.Name] = true
		if slices.Contains(w.fio, "--iodepth=0") {
			t.Errorf("%s has no depth", w.Name)
		}
	}
}
