package fusefs

import (
	"testing"

	"sluice/block"
)

// A change that a flush did not wait for is flushed by the next close.
func TestCloseFlushesWhatAFlushDidNotCover(t *testing.T) {
	for what, change := range map[string]func(*file) error{
		"write": func(f *file) error { return f.store(make([]byte, 512), 0, false) },
		"zero":  func(f *file) error { return f.zero(0, 4096, 0) },
	} {
		d, hold := newScripted(1<<20), make(chan struct{})
		f := newFile(File{Name: "disk", Device: d}, 1)
		d.set(nil, hold)
		changed := make(chan error)
		go func() { changed <- change(f) }()
		if call := <-d.calls; call != "write" {
			t.Fatalf("%s became %s", what, call)
		}
		d.set(nil, nil)
		if err := f.flush(); err != nil {
			t.Error(err)
		}
		<-d.calls
		close(hold)
		if err := <-changed; err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for len(d.calls) > 0 { // what else it was made of
			<-d.calls
		}
		d.set(block.Errorf(block.IO, "flush", "disk", -1, "lost"), nil)
		if err := f.flushWritten(); block.KindOf(err) != block.IO {
			t.Errorf("%s: a close afterwards: %v", what, err)
		}
		d.set(nil, nil)
		if err := f.flushWritten(); err != nil {
			t.Error(err)
		}
		for len(d.calls) > 0 {
			<-d.calls
		}
		if err := f.flushWritten(); err != nil || len(d.calls) != 0 {
			t.Errorf("%s: nothing was left to flush: %v, %d calls", what, err, len(d.calls))
		}
	}
}

// Nor is a close told that all is well while it is not known what came of a flush.
func TestCloseDoesNotOvertakeAFlush(t *testing.T) {
	d, hold := newScripted(1<<20), make(chan struct{})
	f := newFile(File{Name: "disk", Device: d}, 1)
	if err := f.store(make([]byte, 512), 0, false); err != nil {
		t.Fatal(err)
	}
	<-d.calls
	d.set(block.Errorf(block.IO, "flush", "disk", -1, "lost"), hold)
	flushed := make(chan error)
	go func() { flushed <- f.flush() }()
	<-d.calls
	closed := make(chan error)
	go func() { closed <- f.flushWritten() }()
	<-d.calls // it does not end without the device
	close(hold)
	for _, ended := range []chan error{flushed, closed} {
		if err := <-ended; block.KindOf(err) != block.IO {
			t.Errorf("%v", err)
		}
	}
}
