package nbd_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"sluice/backends/mem"
	"sluice/block"
	"sluice/nbd"
)

// exampleServer serves a RAM disk of 1 MiB as "disk" on a unix socket.
func exampleServer() (uri string, stop func()) {
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "nbd.sock"))
	if err != nil {
		log.Fatal(err)
	}
	disk, err := mem.New(1 << 20)
	if err != nil {
		log.Fatal(err)
	}
	var exports nbd.Exports
	if err := exports.Add(&nbd.Export{Name: "disk", Description: "an example", Device: disk}); err != nil {
		log.Fatal(err)
	}
	server := nbd.NewServer(nbd.ServerConfig{Catalog: &exports})
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	return "nbd+unix:///disk?socket=" + listener.Addr().String(), func() {
		_ = server.Close()
		<-done
		_ = os.RemoveAll(dir)
	}
}

func ExampleDial() {
	uri, stop := exampleServer()
	defer stop()
	ctx := context.Background()
	client, err := nbd.Dial(ctx, uri, nbd.ClientConfig{Connections: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()

	if err := client.WriteAt(ctx, []byte("hello"), 4096, 0); err != nil {
		log.Fatal(err)
	}
	if err := client.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 5)
	if err := client.ReadAt(ctx, p, 4096); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, at 4096 of %d bytes\n", p, client.Info().Size)
	// Output: hello, at 4096 of 1048576 bytes
}

func ExampleClient_Extents() {
	uri, stop := exampleServer()
	defer stop()
	ctx := context.Background()
	client, err := nbd.Dial(ctx, uri, nbd.ClientConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.WriteAt(ctx, make([]byte, 65536), 65536, 0); err != nil {
		log.Fatal(err)
	}

	extents := make([]block.Extent, 0, 16)
	for off, size := int64(0), client.Info().Size; off < size; extents = extents[:0] {
		if extents, err = client.Extents(ctx, off, size-off, extents); err != nil {
			log.Fatal(err)
		}
		for _, e := range extents {
			fmt.Println(off, e.Len, e.State&block.Zero != 0)
			off += e.Len
		}
	}
	// Output:
	// 0 65536 true
	// 65536 65536 false
	// 131072 917504 true
}

func ExampleList() {
	uri, stop := exampleServer()
	defer stop()
	exports, err := nbd.List(context.Background(), uri, nbd.ClientConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range exports {
		fmt.Printf("%s (%s): %d bytes\n", e.Name, e.Description, e.Size)
	}
	// Output: disk (an example): 1048576 bytes
}

func ExampleParseURI() {
	uri, err := nbd.ParseURI("nbds://[2001:db8::1]/vm%20disk?tls-hostname=storage")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(uri.Network(), uri.Address(), uri.Export, uri.TLSHostname)
	_, err = nbd.ParseURI("nbd+unix:///disk?sock=/run/nbd.sock")
	fmt.Println(err)
	// Output:
	// tcp [2001:db8::1]:10809 vm disk storage
	// parse NBD URI nbd+unix:///disk?sock=/run/nbd.sock: unknown parameter "sock"
}
