package rpc

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/backends/nfs/xdr"
)

// cannedServer, in the environment, makes the test binary a server for benchmarks, so
// that its processor time is not the client's.
const cannedServer = "SLUICE_RPC_CANNED_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(cannedServer) != "" {
		serveCanned()
		return
	}
	goleak.VerifyTestMain(m)
}

// serveCanned answers one connection: the first argument of a call is how much data its
// reply has. All calls that one read brings are answered with one write. It ends with its
// standard input.
func serveCanned() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go answerCanned(conn)
	}
}

func answerCanned(conn net.Conn) {
	in := bufio.NewReaderSize(conn, 256<<10)
	data := make([]byte, 1<<20)
	for {
		var heads [64][36]byte
		var out net.Buffers
		for n := 0; n < len(heads) && (n == 0 || in.Buffered() >= 52); n++ {
			b, err := in.Peek(48)
			if err != nil {
				return
			}
			size := binary.BigEndian.Uint32(b[44:])
			h := append(heads[n][:0], 0, 0, 0, 0)
			h = append(h, accepted(binary.BigEndian.Uint32(b[4:]), words(0, size))...)
			binary.BigEndian.PutUint32(h, lastFragment|uint32(len(h)-4)+size)
			record := binary.BigEndian.Uint32(b) &^ lastFragment
			if _, err := in.Discard(4 + int(record)); err != nil {
				return
			}
			out = append(out, h, data[:size])
		}
		if _, err := out.WriteTo(conn); err != nil {
			return
		}
	}
}

// dialCanned starts the server.
func dialCanned(b *testing.B) func(context.Context) (net.Conn, error) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), cannedServer+"=1", "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimSpace(addr))
	}
}

func processorTime() time.Duration {
	var use syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkCalls makes calls against a server with canned replies. cpu-us/op is the
// client's processor time.
func BenchmarkCalls(b *testing.B) {
	dial := dialCanned(b)
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, what := range []string{"read", "write"} {
			for _, depth := range []int{1, 16, 64} {
				if size > 4<<10 && depth > 16 {
					continue
				}
				b.Run(fmt.Sprintf("%s%dk/depth%d", what, size>>10, depth), func(b *testing.B) {
					benchCalls(b, dial, what == "read", size, depth)
				})
			}
		}
	}
}

func benchCalls(b *testing.B, dial func(context.Context) (net.Conn, error), read bool, size, depth int) {
	tr, err := Open(b.Context(), Config{Dial: dial, Program: 100003, Version: 4, MaxReply: 2 << 20, Patience: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var todo atomic.Int64
	var callers sync.WaitGroup
	todo.Store(int64(b.N))
	from := processorTime()
	b.ResetTimer()
	for range depth {
		c, buf, forsake := tr.NewCall(), make([]byte, size), make(chan struct{})
		callers.Go(func() {
			for todo.Add(-1) >= 0 {
				c.Head, c.Forsake = tr.Start(c.Head, 6), forsake
				if read {
					c.Head = xdr.AppendUint32(c.Head, uint32(size))
					c.Into, c.Find = buf, halfway{}
				} else {
					c.Head = xdr.AppendUint32(c.Head, 0)
					c.Data, c.Changes = buf, true
				}
				if _, err := tr.Do(context.Background(), c); err != nil || read && c.N != size {
					b.Error(err, c.N)
					return
				}
			}
		})
	}
	callers.Wait()
	b.StopTimer()
	b.ReportMetric(float64((processorTime()-from).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
	_ = tr.Close()
}
