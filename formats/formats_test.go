package formats

import (
	"context"
	"strings"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
)

func TestFromName(t *testing.T) {
	for name, want := range map[string]string{
		"a.qcow2": "qcow2", "/x.y/A.QCOW2": "qcow2", "b.vhd": "vhd", "c.raw": "raw", "d.img": "raw", "e": "raw", "qcow2": "raw",
		"file:///x/f.qcow2": "qcow2", "/dev/loop0": "raw", "": "raw",
		"a.qcow": "qcow", "a.qed": "qed", "a.VPC": "vhd", "a.vhdx": "vhdx", "a.vmdk": "vmdk", "a.vdi": "vdi", "a.hdd": "parallels",
		"a.hds": "parallels",
	} {
		if got := FromName(name); got != want {
			t.Errorf("FromName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestKnown(t *testing.T) {
	for name, want := range map[string]bool{"raw": true, "qcow2": true, "parallels": true, "": false, "Raw": false, ".qcow2": false} {
		if Known(name) != want {
			t.Errorf("Known(%q) is not %t", name, want)
		}
	}
}

func TestOpenRawIsTheDeviceItself(t *testing.T) {
	dev, err := mem.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(context.Background(), dev, "raw")
	if err != nil || got != block.Device(dev) {
		t.Errorf("got %v, %v", got, err)
	}
	if err := got.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenUnknownNamesTheKnown(t *testing.T) {
	dev, err := mem.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), dev, "vmdk")
	if block.KindOf(err) != block.Invalid || !strings.Contains(err.Error(), `unknown format "vmdk" (known: raw)`) {
		t.Errorf("got %v", err)
	}
	if err := dev.ReadAt(context.Background(), make([]byte, 1), 0); err != nil {
		t.Errorf("the device was not left open: %v", err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}
