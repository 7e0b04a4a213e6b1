package suite

import (
	"slices"
	"strings"
	"testing"

	"sluice/bench/report"
)

// Every workload that the project's targets name has to be there, and every peer.
func TestTargetsCanBeMeasured(t *testing.T) {
	servers, err := Choose("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range report.Targets {
		ws, err := Select(target.Workload)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range append([]string{target.About()}, target.Peers...) {
			i := slices.IndexFunc(servers, func(s Server) bool { return s.Name == name })
			if i < 0 || !servers[i].onFile() || !servers[i].takes(ws[0]) {
				t.Errorf("no server %s on the file under %s", name, target.Workload)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	names := func(list string, custom ...string) string {
		t.Helper()
		servers, err := Choose(list, custom)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range servers {
			out = append(out, s.Name+":"+string(s.Kind))
		}
		return strings.Join(out, " ")
	}
	const all = "sluice:file qemu-nbd:file qsd-uring:file nbdkit-file:file go-nbd:file local:local " +
		"sluice-mem:mem nbdkit-memory:mem nbdkit-null:null sluice-metrics:file sluice-daemon:file " +
		"sluice-fuse:fuse sluice-pass:fuse qsd-fuse:fuse qsd-fuse-uring:fuse direct:direct sluice-copy:copier nbdcopy:copier"
	for _, c := range []struct{ got, want string }{
		{names(""), all},
		{names("nbdkit-null,qsd-threads"), "qsd-threads:file nbdkit-null:null"},
		{names("qemu-nbd", "sluice-x=x serve {file} {socket}"), "qemu-nbd:file sluice-x:file"},
		{names("qemu-nbd", "ram={sluice} {size} {socket}"), "qemu-nbd:file ram:mem"},
		{names("qnbd-nfs,sluice-nfs", "mine=x {nfs}?a=b {socket}"), "sluice-nfs:nfs qnbd-nfs:nfs mine:nfs"},
		{names("", "sluice=x {file} {socket}"), all},
		{names("direct", "other=x {file} {mount}"), "direct:direct other:fuse"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestChooseRejects(t *testing.T) {
	for _, c := range []struct{ list, custom, want string }{
		{"qemu-ndb", "", `unknown server "qemu-ndb"; there are sluice, qemu-nbd`},
		{"", "x", "not of the form name=command"},
		{"", "=x {socket}", "not of the form name=command"},
		{"", "x=serve {file}", "does not say where {socket} goes, or {mount}"},
	} {
		var custom []string
		if c.custom != "" {
			custom = []string{c.custom}
		}
		if _, err := Choose(c.list, custom); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Choose(%q, %q): %v, want %q", c.list, c.custom, err, c.want)
		}
	}
}

func TestArgs(t *testing.T) {
	servers, err := Choose("sluice", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := servers[0].Args(Places{Sluice: "/a b/sluice", Socket: "/tmp/s", File: "/x y/disk"})
	want := []string{"/a b/sluice", "serve", "/x y/disk", "--nbd", "unix:/tmp/s"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := servers[0].Documented("bin/sluice").Command; got != "bin/sluice serve {file} --nbd unix:{socket}" {
		t.Errorf("documented as %q", got)
	}
}

// What a server in FUSE and one with a configuration are told, as it is run.
func TestArgsOfFUSEDaemonAndNFS(t *testing.T) {
	servers, err := Choose("sluice-daemon,sluice-fuse,sluice-pass,qsd-fuse,qsd-fuse-uring", []string{"other=x {file} {mount}/disk"})
	if err != nil {
		t.Fatal(err)
	}
	at := Places{Sluice: "/sluice", Socket: "/s", File: "/d", Config: "/c", Mount: "/m", NFS: "nfs://h:1/export/disk.raw", LibNFS: "nfs://h/export/disk.raw"}
	want := map[string]string{
		"sluice-daemon": "/sluice daemon --config /c",
		"sluice-fuse":   "/sluice serve /d --fuse /m --name disk",
		"sluice-pass":   "/sluice serve /d --fuse /m --name disk --fuse-passthrough",
		"qsd-fuse": "qemu-storage-daemon --blockdev driver=file,node-name=disk,filename=/d,aio=threads " +
			"--export type=fuse,id=export,node-name=disk,mountpoint=/m/disk,writable=on",
		"qsd-fuse-uring": "qemu-storage-daemon --blockdev driver=file,node-name=disk,filename=/d,aio=io_uring " +
			"--export type=fuse,id=export,node-name=disk,mountpoint=/m/disk,writable=on",
		"other": "x /d /m/disk",
	}
	over, err := Choose("sluice-nfs,sluice-nfs3,qnbd-nfs", nil)
	if err != nil {
		t.Fatal(err)
	}
	servers = append(servers, over...)
	want["sluice-nfs"] = "/sluice serve nfs://h:1/export/disk.raw --nbd unix:/s"
	want["sluice-nfs3"] = "/sluice serve nfs://h:1/export/disk.raw?vers=3 --nbd unix:/s"
	want["qnbd-nfs"] = "qemu-nbd --persistent --shared=16 --format=raw --cache=writeback --socket=/s nfs://h/export/disk.raw"
	onto := map[string]bool{"qsd-fuse": true, "qsd-fuse-uring": true, "other": true}
	for _, s := range servers {
		if got := strings.Join(s.Args(at), " "); got != want[s.Name] || s.onto != onto[s.Name] {
			t.Errorf("%s: %s (mounts on the file: %v)", s.Name, got, s.onto)
		}
	}
	config := at.fill([]string{servers[0].config})[0]
	const wantConfig = "nbd = [\"unix:/s\"]\napi = [\"unix:/s.api\"]\nstate = \"/c.state\"\n\n[[export]]\nname = \"disk\"\nurl = \"/d\"\n"
	if config != wantConfig {
		t.Errorf("configuration:\n%s", config)
	}
}

func TestLookupNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for list, want := range map[string]string{
		"sluice":      "build it with: make build",
		"qemu-nbd":    "apt-get install qemu-utils",
		"qsd-uring":   "apt-get install qemu-system-common",
		"nbdkit-null": "apt-get install nbdkit",
		"nbdcopy":     "apt-get install libnbd-bin",
		"qnbd-nfs":    "apt-get install qemu-utils",
		"local":       "apt-get install fio",
	} {
		servers, err := Choose(list, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := Plan{Servers: servers, Sluice: "bin/no-such-program"}
		if err := p.Lookup(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
	}
	for list, want := range map[string]string{"rr1": "apt-get install fio", "cr1": "apt-get install libnbd-bin"} {
		ws, err := Select(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Plan{Workloads: ws}).Lookup(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", list, err, want)
		}
	}
}
