package nbd_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	gonbd "github.com/pojntfx/go-nbd/pkg/backend"

	"sluice/backends/mem"
	"sluice/nbd"
)

// A server with one export, until it is shut down in an orderly way.
func ExampleNewServer() {
	disk, err := mem.New(64 << 20)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = disk.Close() }()

	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Name: "scratch", Device: disk, MaxConnections: 8}); err != nil {
		log.Fatal(err)
	}
	server := nbd.NewServer(nbd.ServerConfig{Catalog: &exports})

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()

	list, err := nbd.List(context.Background(), "nbd://"+listener.Addr().String(), nbd.ClientConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for _, x := range list {
		fmt.Printf("%q has %d bytes\n", x.Name, x.Size)
	}

	// Requests that have arrived are finished; after ten seconds the rest is cut.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-served)
	// Output:
	// "scratch" has 67108864 bytes
	// nbd: server closed
}

// A backend that was written for go-nbd, served with everything that its own
// server lacks: flushes, bounds, requests in parallel.
func ExampleFromGoNBD() {
	device, err := nbd.FromGoNBD(gonbd.NewMemoryBackend(make([]byte, 1<<20)))
	if err != nil {
		log.Fatal(err)
	}
	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Device: device}); err != nil {
		log.Fatal(err)
	}
	server := nbd.NewServer(nbd.ServerConfig{Catalog: &exports})
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()

	ctx := context.Background()
	client, err := nbd.Dial(ctx, "nbd+unix:///?socket="+listener.Addr().String(), nbd.ClientConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.WriteAt(ctx, []byte("kept"), 512, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Flush(ctx), client.Close(), server.Close(), <-served)
	// Output: <nil> <nil> <nil> nbd: server closed
}
