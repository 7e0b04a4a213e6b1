package fusefs

import (
	"testing"

	"golang.org/x/sys/unix"
)

func asked(unique uint64, code uint32, n int) *job {
	return &job{req: request{unique: unique, code: code, data: make([]byte, n)}}
}

// While a write whose client was let go is in the device nothing else begins; then
// all that has a place does.
func TestAbandonedWriteKeepsOthersOut(t *testing.T) {
	w := work{max: 3, maxHeld: 1 << 20}
	lost, other := asked(1, opWrite, 0), asked(2, opRead, 0)
	if !w.begin(lost) || !w.begin(other) {
		t.Fatal("there were places")
	}
	if j, ok := w.abandon(1); j != nil || !ok || !w.fenced() {
		t.Fatalf("abandoned: %v, %v", j, ok)
	}
	var line []*job
	for unique := uint64(3); unique < 9; unique++ {
		j := asked(unique, opRead, 0)
		if line = append(line, j); w.begin(j) || w.enqueue(j) != queued {
			t.Fatal("begun beside an abandoned write")
		}
	}
	if j, idle := w.next(other); j != nil || idle != 0 || w.another() != nil {
		t.Fatal("begun beside an abandoned write")
	}
	j, idle := w.next(lost)
	if j != line[0] || idle != 2 || w.fenced() {
		t.Errorf("afterwards: %v and %d", j, idle)
	}
	if w.another() != line[1] || w.another() != line[2] || w.another() != nil {
		t.Error("not as many as there are places")
	}
	for i, j := range line { // the last three end the queue
		if next, idle := w.next(j); idle != 0 || i < 3 && next != line[i+3] || i >= 3 && next != nil {
			t.Errorf("after %d: %v, %d", i, next, idle)
		}
	}
	if w.busy.n != 0 || w.queue.n != 0 || w.busy.first != nil || w.queue.last != nil {
		t.Errorf("left: %d busy, %d in line", w.busy.n, w.queue.n)
	}
}

func TestAbandonedJobLeavesTheQueue(t *testing.T) {
	w := work{max: 1, maxHeld: 100}
	read, write, last, copied := asked(1, opRead, 0), asked(2, opWrite, 60), asked(3, opWrite, 40), asked(4, opCopyFileRange, 0)
	if !w.begin(read) || w.enqueue(write) != queued || w.enqueue(last) != queued || w.enqueue(asked(5, opWrite, 1)) != full ||
		w.enqueue(copied) != queued {
		t.Fatal("the bound is not where it should be")
	}
	if j, ok := w.abandon(2); j != write || !ok || w.held != 40 || w.fenced() {
		t.Errorf("%v, %v, %d bytes held", j, ok, w.held)
	}
	if j, ok := w.abandon(1); j != nil || !ok || w.fenced() {
		t.Errorf("a read in the device: %v, %v, fenced %v", j, ok, w.fenced())
	}
	if _, ok := w.abandon(77); ok {
		t.Error("let go an unknown one")
	}
	if j, _ := w.next(read); j != last || w.held != 0 {
		t.Errorf("next is %v, %d bytes held", j, w.held)
	}
	if j, _ := w.next(last); j != copied {
		t.Errorf("next is %v", j)
	}
	if _, ok := w.abandon(4); ok { // its target is another file
		t.Error("a copy in the device was let go")
	}
}

// A signal is found once, and stays with the request until that ends.
func TestSignalsAreFound(t *testing.T) {
	w := work{max: 1, maxHeld: 100}
	busy, waiting := asked(1, opRead, 0), asked(2, opRead, 0)
	busy.req.pid, waiting.req.pid = 10, 20
	if !w.begin(busy) || w.enqueue(waiting) != queued {
		t.Fatal("no place")
	}
	noted := map[uint64]int{2: 5, 3: 5}
	for range 2 {
		var pids []uint32
		w.signalled(noted, func(unique uint64, pid uint32) { pids = append(pids, pid) })
		if len(pids) != 1 || pids[0] != 20 || len(noted) != 1 {
			t.Errorf("found %v, left %v", pids, noted)
		}
	}
}

func TestLivingThreadsAreNotDying(t *testing.T) {
	if dying(0) || dying(uint32(unix.Gettid())) || dying(1<<30) {
		t.Error("a thread that lives, or none, was taken for dying")
	}
}
