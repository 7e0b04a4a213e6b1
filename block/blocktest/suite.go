package blocktest

import (
	"testing"

	"sluice/block"
)

// MinSize is the least number of bytes that Suite.Open's Device must have; it
// must have 32 times Info().Block.Min, too. Tests are fastest with Devices of
// that size to two MiB.
const MinSize = 512 << 10

// Suite describes a kind of Device to the conformance tests.
type Suite struct {
	// Name goes before the names of the checks; may be empty.
	Name string

	// Open makes a new image of at least MinSize bytes and opens it. The image
	// reads as Content. The suite closes the Device; what else Open started is
	// cleaned up with t.Cleanup (after the Device was closed).
	Open func(t testing.TB) block.Device

	// Content is what a new image begins with; the rest reads as zeroes.
	Content []byte

	// Reopen opens again the image that the latest call of Open made. Optional:
	// without it nothing is known about what survives a Close. The suite calls
	// it after closing the first Device and, where the Device has CapMultiConn
	// and NoMultiConn is not set, also while the first is open.
	Reopen func(t testing.TB) block.Device

	// Crash cuts the power below the Device that the latest call of Open made
	// and opens what survived. Optional: with it the suite checks that what was
	// flushed or written with FUA is there. The crashed Device is closed by the
	// suite afterwards; what that Close returns does not matter.
	Crash func(t testing.TB) block.Device

	// ReadOnly says that the Device must be read-only. Give Content with it.
	ReadOnly bool

	// NoMultiConn leaves out the check of two Devices open on the same image
	// (for images that are locked against a second opening).
	NoMultiConn bool

	// MaxSize is how large Resize may make the image; 0 means twice the size it
	// is opened with.
	MaxSize int64

	// OddSize says that the Device's size must not be a multiple of 512, so
	// that its last sector is a partial one.
	OddSize bool

	// LooseZero leaves out the check that WriteZeroes without MayUnmap leaves
	// no hole, for Devices whose other side does not promise that.
	LooseZero bool

	seed uint64 // of the check that runs; 0: the fixed choices
}

// check is one row of the table: a property, and the Devices that it concerns.
type check struct {
	name    string
	applies func(*Suite, block.Info) bool
	run     func(*probe)
}

// checks is the table of everything that Run looks at.
var checks = []check{
	{"info", always, checkInfo},
	{"initial-content", always, checkInitialContent},
	{"edges", writable, checkEdges},
	{"odd-offsets", byteWise, checkOddOffsets},
	{"large", writable, checkLarge},
	{"empty-requests", always, checkEmptyRequests},
	{"out-of-range", always, checkOutOfRange},
	{"misaligned", always, checkMisaligned},
	{"unknown-flags", writable, checkUnknownFlags},
	{"fua", writable, checkFUA},
	{"read-only", readOnly, checkReadOnly},
	{"buffers", writable, checkBuffers},
	{"cancelled", always, checkCancelled},
	{"cancel-in-flight", writable, checkCancelInFlight},

	{"zeroes", writableWith(block.CapZero), checkZeroes},
	{"zeroes-allocate", zeroesAllocate, checkZeroesAllocate},
	{"discard", writableWith(block.CapDiscard), checkDiscard},
	{"extents", with(block.CapExtents), checkExtents},
	{"extents-truth", writableWith(block.CapExtents), checkExtentsTruth},
	{"prefetch", with(block.CapPrefetch), checkPrefetch},
	{"resize", writableWith(block.CapResize), checkResize},
	{"resize-refusals", writableWith(block.CapResize), checkResizeRefusals},
	{"nowait", with(block.CapNowait), checkNowait},
	{"file-range", with(block.CapFileRange), checkFileRange},
	{"bitmaps", with(block.CapBitmaps), checkBitmaps},
	{"start", with(block.CapStart), checkStart},

	{"parallel-disjoint", writable, checkParallelDisjoint},
	{"parallel-overlap", writable, checkParallelOverlap},
	{"close", always, checkClose},
	{"close-in-use", always, checkCloseInUse},
	{"persistence", persistent, checkPersistence},
	{"multi-conn", multiConn, checkMultiConn},
	{"crash", crashable, checkCrash},
	{"model", writable, checkModel},
}

func always(*Suite, block.Info) bool       { return true }
func writable(_ *Suite, i block.Info) bool { return !i.ReadOnly }
func readOnly(_ *Suite, i block.Info) bool { return i.ReadOnly }
func byteWise(_ *Suite, i block.Info) bool { return !i.ReadOnly && i.Block.Min == 1 }
func zeroesAllocate(s *Suite, i block.Info) bool {
	return !s.LooseZero && !i.ReadOnly && i.Has(block.CapZero|block.CapExtents)
}
func persistent(s *Suite, i block.Info) bool { return s.Reopen != nil && !i.ReadOnly }
func crashable(s *Suite, i block.Info) bool  { return s.Crash != nil && !i.ReadOnly }
func with(c block.Cap) func(*Suite, block.Info) bool {
	return func(_ *Suite, i block.Info) bool { return i.Has(c) }
}

func writableWith(c block.Cap) func(*Suite, block.Info) bool {
	return func(_ *Suite, i block.Info) bool { return !i.ReadOnly && i.Has(c) }
}

func multiConn(s *Suite, i block.Info) bool {
	return persistent(s, i) && !s.NoMultiConn && i.Has(block.CapMultiConn)
}

// Run opens a Device, picks the checks that concern it by its Info, and runs
// each of them as a subtest on a Device of its own.
func (s Suite) Run(t *testing.T) {
	t.Helper()
	if s.Name != "" {
		name := s.Name
		s.Name = ""
		t.Run(name, func(t *testing.T) { s.Run(t) })
		return
	}
	info := s.inspect(t)
	for _, c := range checks {
		if c.applies(&s, info) {
			t.Run(c.name, func(t *testing.T) { s.runCheck(t, c) })
		}
	}
}

// inspect opens a Device for its Info alone.
func (s *Suite) inspect(t testing.TB) block.Info {
	t.Helper()
	dev := s.Open(t)
	info := dev.Info()
	if err := dev.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	return info
}

// runCheck runs one check on a fresh Device.
func (s *Suite) runCheck(t testing.TB, c check) {
	t.Helper()
	s.reseed(t)
	p := newProbe(t, s, s.Open(t))
	defer p.close()
	c.run(p)
}

func init() { setRapid() }
