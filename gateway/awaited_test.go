package gateway

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"sluice/block"
	"sluice/filters/hold"
	"sluice/filters/swap"
)

// opening is a file whose image is being opened, and that image.
type opening struct {
	*awaited
	*testing.T
	image *stack
}

// whileOpening runs a test in a bubble, where time passes when nobody has to do anything.
func whileOpening(t *testing.T, policy hold.Policy, test func(*opening)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		image := &stack{image: swap.New(ram(t))}
		image.layers = layering{name: "a", log: slog.New(slog.DiscardHandler)}.build(image.image)
		image.hold.SetPolicy(policy)
		o := &opening{newAwaited("a", 1<<20, policy), t, image}
		test(o)
		if err := image.top.Close(); err != nil {
			t.Error(err)
		}
	})
}

// request is a call of the file that may take its time.
type request struct {
	*opening
	what  string
	ended chan error
}

func (o *opening) begin(what string, call func() error) *request {
	r := &request{o, what, make(chan error, 1)}
	go func() { r.ended <- call() }()
	synctest.Wait()
	return r
}

func (o *opening) read() *request {
	return o.begin("read", func() error { return o.ReadAt(o.Context(), make([]byte, 512), 0) })
}

func (o *opening) write() *request {
	return o.begin("write", func() error { return o.WriteAt(o.Context(), []byte("x"), 0, 0) })
}

func (o *opening) all() []*request {
	return []*request{
		o.read(), o.write(),
		o.begin("flush", func() error { return o.Flush(o.Context()) }),
		o.begin("zeroes", func() error { return o.WriteZeroes(o.Context(), 0, 4096, 0) }),
		o.begin("extents", func() error { _, err := o.Extents(o.Context(), 0, 4096, nil); return err }),
	}
}

func (r *request) waits() {
	r.Helper()
	select {
	case err := <-r.ended:
		r.Errorf("%s did not wait: %v", r.what, err)
		r.ended <- err
	default:
	}
}

// ends is a request that has its answer.
func (r *request) ends(kind block.Kind) {
	r.Helper()
	synctest.Wait()
	select {
	case err := <-r.ended:
		if block.KindOf(err) != kind {
			r.Errorf("%s: %v, want %v", r.what, err, kind)
		}
	default:
		r.Errorf("%s still waits", r.what)
		<-r.ended
	}
}

var away = block.Errorf(block.NotFound, "open", "a.img", -1, "")

// hold: all wait, however often opening fails, and work when the image is there.
func TestFileHolds(t *testing.T) {
	whileOpening(t, hold.Policy{}, func(o *opening) {
		waiting := o.all()
		o.failed(away, true)
		waiting = append(waiting, o.all()...)
		time.Sleep(time.Hour)
		for _, r := range waiting {
			r.waits()
		}
		if n := o.hold.State().Waiting; n != len(waiting) {
			t.Errorf("%d wait, want %d", n, len(waiting))
		}
		before := time.Now()
		o.arrive(o.image)
		for _, r := range append(waiting, o.all()...) {
			r.ends(block.OK)
		}
		if took := time.Since(before); took != 0 {
			t.Errorf("they went on after %v", took)
		}
		if now := o.image.hold.State().Status; now != hold.Serving {
			t.Errorf("the image is %v", now)
		}
	})
}

// hold with a limit: who has waited for so long gets the error, also while the first
// attempt to open the image hangs.
func TestFileHoldsToTheLimit(t *testing.T) {
	whileOpening(t, hold.Policy{Limit: 10 * time.Second}, func(o *opening) {
		waiting := o.all()
		time.Sleep(5 * time.Second)
		later := o.read()
		time.Sleep(5*time.Second - time.Millisecond)
		for _, r := range waiting {
			r.waits()
		}
		time.Sleep(time.Millisecond)
		for _, r := range waiting {
			r.ends(block.Transient)
		}
		later.waits()
		o.arrive(o.image)
		later.ends(block.OK)
	})
}

// error: what comes while the first attempt is made waits for its outcome, since a
// restart is no failure; then all fail at once.
func TestFileFails(t *testing.T) {
	whileOpening(t, hold.Policy{Mode: hold.Fail}, func(o *opening) {
		waiting := o.all()
		time.Sleep(time.Minute)
		for _, r := range waiting {
			r.waits()
		}
		o.failed(away, true)
		for _, r := range append(waiting, o.all()...) {
			r.ends(block.Transient)
		}
		o.arrive(o.image)
		for _, r := range o.all() {
			r.ends(block.OK)
		}
	})
	whileOpening(t, hold.Policy{Mode: hold.Fail}, func(o *opening) {
		waiting := o.all()
		o.arrive(o.image)
		for _, r := range waiting {
			r.ends(block.OK)
		}
	})
}

// read-only: what fails fails, and no change follows it, also when the image is
// there, until somebody says so.
func TestFileFreezes(t *testing.T) {
	whileOpening(t, hold.Policy{Mode: hold.Freeze}, func(o *opening) {
		first := o.write()
		o.failed(away, true)
		first.ends(block.Transient)
		o.write().ends(block.ReadOnly)
		o.read().ends(block.Transient)
		o.arrive(o.image)
		o.write().ends(block.ReadOnly)
		o.read().ends(block.OK)
		if st := o.image.hold.State(); st.Status != hold.Frozen || st.Err == nil {
			t.Errorf("the image is %+v", st)
		}
		o.image.hold.Resume()
		o.write().ends(block.OK)
	})
	whileOpening(t, hold.Policy{Mode: hold.Freeze}, func(o *opening) {
		first := o.write()
		o.arrive(o.image)
		first.ends(block.OK)
		o.write().ends(block.OK)
	})
}

// Where waiting will not help nobody waits, whatever the policy; when somebody asks
// for another attempt, they do again.
func TestFileOfAnImageThatFails(t *testing.T) {
	for _, mode := range []hold.Mode{hold.Wait, hold.Fail, hold.Freeze} {
		whileOpening(t, hold.Policy{Mode: mode}, func(o *opening) {
			waiting := o.all()
			o.failed(block.Errorf(block.Corrupt, "open", "a.img", -1, ""), false)
			for _, r := range append(waiting, o.all()...) {
				r.ends(block.IO)
			}
			o.anew()
			waiting = o.all()
			for _, r := range waiting {
				r.waits()
			}
			o.arrive(o.image)
			for _, r := range waiting {
				r.ends(block.OK)
			}
		})
	}
}

// Another policy takes effect for those who wait.
func TestFileOfAChangedPolicy(t *testing.T) {
	whileOpening(t, hold.Policy{}, func(o *opening) {
		waiting := o.all()
		o.failed(away, true)
		o.hold.SetPolicy(hold.Policy{Mode: hold.Fail})
		for _, r := range append(waiting, o.all()...) {
			r.ends(block.Transient)
		}
		o.hold.SetPolicy(hold.Policy{})
		last := o.read()
		last.waits()
		o.arrive(o.image)
		last.ends(block.OK)
	})
}

// Once the image is there, a request costs no allocation more than without.
func TestFileAllocatesNothing(t *testing.T) {
	image := &stack{image: swap.New(ram(t))}
	image.layers = layering{name: "a", log: slog.New(slog.DiscardHandler)}.build(image.image)
	defer func() { _ = image.top.Close() }()
	a := newAwaited("a", 1<<20, hold.Policy{})
	a.arrive(image)
	p, ctx := make([]byte, 4096), t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if a.ReadAt(ctx, p, 0) != nil || a.WriteAt(ctx, p, 4096, 0) != nil || a.Flush(ctx) != nil || a.WriteZeroes(ctx, 0, 4096, 0) != nil {
			t.Error("a request failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
