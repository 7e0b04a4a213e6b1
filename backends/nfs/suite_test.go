package nfs

import (
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"sluice/block"
	"sluice/block/blocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// image is the file that most tests work with.
const image = "/images/a.img"

// config is what a URL says, which must be right.
func config(t testing.TB, url string) Config {
	t.Helper()
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// device opens the image of a server. More parameters may follow the URL.
func device(t testing.TB, s *server, parameters string, opts block.OpenOptions) *Device {
	t.Helper()
	d, err := open(background, s.pool(), config(t, "nfs://filer"+image+parameters), opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// suite runs the conformance suite on files of the size.
func suite(t *testing.T, name string, size int64, parameters string, shape func(*server)) {
	var s *server
	opts := block.OpenOptions{Share: true}
	probe := newServer()
	shape(probe)
	restarts := probe.every != 0
	blocktest.Suite{
		Name: name,
		Open: func(t testing.TB) block.Device {
			s = newServer()
			shape(s)
			s.file(image, make([]byte, size))
			return device(t, s, parameters, opts)
		},
		Reopen: func(t testing.TB) block.Device { return device(t, s, parameters, opts) },
		Crash: func(t testing.TB) block.Device {
			return device(t, s.survivors(), parameters, opts)
		},
		OddSize: size%512 != 0,
		// What lies in a CrashDevice as zeroes is a hole after a crash.
		LooseZero: restarts,
	}.Run(t)
}

func TestSuite(t *testing.T) {
	const even, odd = 1 << 20, 1<<20 + 777
	suite(t, "4.2", even, "", func(*server) {})
	suite(t, "odd", odd, "?rsize=4K&wsize=4K", func(*server) {})
	suite(t, "short", odd, "", func(s *server) { s.short = 3072 })
	suite(t, "without 4.2", odd, "", func(s *server) { s.limits.Seek, s.limits.Allocate = false, false })
	suite(t, "little kept", even, "?keep=1M", func(*server) {})
	suite(t, "restarts", even, "", func(s *server) { s.every = 17 })
	suite(t, "restarts, some survives", even, "", func(s *server) { s.every, s.rng = 31, rand.New(rand.NewPCG(1, 2)) })
}

func TestSuiteReadOnly(t *testing.T) {
	content := make([]byte, 1<<20+100)
	for i := range content {
		content[i] = byte(i * 7 / 3)
	}
	blocktest.Suite{
		Open: func(t testing.TB) block.Device {
			s := newServer()
			s.file(image, content)
			return device(t, s, "", block.OpenOptions{ReadOnly: true})
		},
		Content:  content,
		ReadOnly: true,
		OddSize:  true,
	}.Run(t)
}
