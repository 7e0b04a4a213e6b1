package lab

import (
	"bytes"
	"strings"
	"sync"
)

// output collects what a process prints, on both streams in the order of
// arrival, and lets others wait for lines of it. mu guards everything; changed
// is closed and replaced when lines arrive or the end has come.
type output struct {
	mu      sync.Mutex
	all     bytes.Buffer // both streams, as they came
	lines   []string     // complete lines of both streams
	partial [2][]byte    // the unfinished line of stdout and of stderr
	stdout  bytes.Buffer // stdout alone
	ended   bool         // no more will come
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// stream is one of the two writers into an output.
type stream struct {
	out *output
	n   int // 0 stdout, 1 stderr
}

// Write takes a piece of output. It never fails.
func (s stream) Write(p []byte) (int, error) {
	o := s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all.Write(p)
	if s.n == 0 {
		o.stdout.Write(p)
	}
	o.partial[s.n] = append(o.partial[s.n], p...)
	for {
		line, rest, ok := bytes.Cut(o.partial[s.n], []byte("\n"))
		if !ok {
			break
		}
		o.lines = append(o.lines, strings.TrimRight(string(line), "\r"))
		o.partial[s.n] = rest
	}
	o.wake()
	return len(p), nil
}

// end says that nothing more will come; an unfinished line counts as one.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, p := range o.partial {
		if len(p) > 0 {
			o.lines = append(o.lines, string(p))
			o.partial[n] = nil
		}
	}
	o.ended = true
	o.wake()
}

// wake tells those who wait that something changed; mu is held.
func (o *output) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// find looks for the first line from number from on that contains text. Without
// one it returns a channel that is closed at the next change, nil after the end.
func (o *output) find(from int, text string) (line string, at int, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := from; i < len(o.lines); i++ {
		if strings.Contains(o.lines[i], text) {
			return o.lines[i], i, nil
		}
	}
	if o.ended {
		return "", -1, nil
	}
	return "", -1, o.changed
}

// text returns all that came so far.
func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// stdoutText returns what came on stdout so far.
func (o *output) stdoutText() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stdout.String()
}
