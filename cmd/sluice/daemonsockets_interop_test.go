//go:build interop

package main

import (
	"strings"
	"testing"

	"sluice/internal/lab"
)

// nbdPorts gives the ports of the lines "ready nbd tcp:HOST:PORT", in their order.
func nbdPorts(p *lab.Proc, n int) (ports []string) {
	for range n {
		line := p.Expect("ready nbd tcp:")
		ports = append(ports, line[strings.LastIndex(line, ":")+1:])
	}
	return ports
}

// TestSocketsByAnyName: the daemon finds the sockets again that the manager keeps,
// also where an address does not read as its socket's does.
func TestSocketsByAnyName(t *testing.T) {
	lab.Need(t, "nbdinfo")
	d := newManaged(t)
	d.image("disk")
	started := func(hosts ...string) []string {
		t.Helper()
		args := d.args
		for _, host := range hosts {
			args = append(args[:len(args):len(args)], "--nbd", "tcp:"+host)
		}
		p := d.m.Start(lab.Sluice(t), args...)
		d.m.Ready()
		return nbdPorts(p, len(hosts))
	}
	stored := func() (n int) {
		for _, name := range d.m.Stored() {
			if strings.HasPrefix(name, "listen-") {
				n++
			}
		}
		return n
	}
	d.m.Kill9()
	first := started("localhost:0", "0.0.0.0:0")
	if n := stored(); n != 4 {
		t.Errorf("%d sockets are stored, want 4 (API, NBD): %q", n, d.m.Stored())
	}
	for _, hosts := range [][]string{
		{"localhost:0", "0.0.0.0:0"},                     // found by name
		{"localhost:" + first[0], "0.0.0.0:" + first[1]}, // written in another way
		{"127.0.0.1:" + first[0], "[::]:" + first[1]},    // and in another
		{"localhost:" + first[0]},                        // the other one is given up
	} {
		d.m.Kill9()
		ports := started(hosts...)
		for i := range hosts {
			if ports[i] != first[i] {
				t.Errorf("%s: port %s, want %s", hosts[i], ports[i], first[i])
			}
			lab.Run(t, "nbdinfo", "--size", "nbd://127.0.0.1:"+ports[i]+"/disk")
		}
		if n := stored(); n != 2+len(hosts) {
			t.Errorf("%q: %d sockets are stored: %q", hosts, n, d.m.Stored())
		}
	}
	if err := d.m.Stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
}
