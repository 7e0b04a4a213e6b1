package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/block/blocktest"
)

// TestInterruptedWhileConnecting: the server takes the connection and says nothing.
func TestInterruptedWhileConnecting(t *testing.T) {
	dir := t.TempDir()
	disk(t, dir, "disk.img")
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	uri := "nbd+unix:///x?socket=" + socket
	t.Chdir(dir)
	for _, line := range []string{"info " + uri, "map " + uri, "ls " + uri, "copy " + uri + " x.img", "copy disk.img " + uri} {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		code := make(chan int)
		var stdout, stderr bytes.Buffer
		go func() { code <- run(ctx, strings.Fields(line), &stdout, &stderr) }()
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if c := <-code; c != exitFailure || !strings.HasSuffix(stderr.String(), ": interrupted\n") || strings.Contains(stderr.String(), "timeout") {
			t.Errorf("sluice %s: exit code %d, %q", line, c, stderr.String())
		}
		_ = conn.Close()
	}
}

// TestAFailedWriteIsNotNothing: a write that came back with an error may have
// changed the destination.
func TestAFailedWriteIsNotNothing(t *testing.T) {
	dir := t.TempDir()
	disk(t, dir, "disk.img")
	for kind, want := range map[blocktest.OpKind]string{
		blocktest.OpWrite: "bytes were copied: the destination holds a mixture)\n",
		blocktest.OpFlush: "at least 4194304 of 4194304 bytes were copied: the destination holds a mixture)\n",
	} {
		ram, err := mem.New(4 << 20)
		if err != nil {
			t.Fatal(err)
		}
		failing := blocktest.InjectorFunc(func(op blocktest.Op) error {
			if op.Kind == kind {
				return block.Errorf(block.IO, "write", "medium", op.Off, "")
			}
			return nil
		})
		uri := "nbd+unix:///?socket=" + exporting(t, blocktest.NewFaultDevice(ram, nil, failing), "")
		refused(t, dir, want, "copy disk.img "+uri)
	}
}
