package nbd

import (
	"testing"
	"time"
)

func TestBusyPollIsGivenUpWhereItDoesNotPay(t *testing.T) {
	b := newBusyPoll(time.Microsecond)
	failures := 0
	for b.begin(forAnswer) {
		b.end(false)
		failures++
	}
	if failures != maxCredit/failureCost {
		t.Errorf("%d failures in a row", failures)
	}
	attempts := 0
	for range 10 * retryAfter {
		if b.begin(forAnswer) {
			b.end(false)
			attempts++
		}
	}
	if attempts < 8 || attempts > 10 {
		t.Errorf("%d attempts in %d receives that do not pay", attempts, 10*retryAfter)
	}
	for !b.begin(forAnswer) {
	}
	b.end(true) // it pays again
	if !b.begin(forAnswer) {
		t.Error("no attempt after a success")
	}
	b.end(true)
}

func TestBusyPollOnlyWhereTheNextBytesAreNear(t *testing.T) {
	b := newBusyPoll(time.Microsecond)
	b.received(2 * requestSize)
	if b.begin(forRequest) {
		t.Error("an attempt after a batch")
	}
	if b.begin(forRest) {
		t.Error("an attempt in the middle of a payload")
	}
	b.received(requestSize)
	if !b.begin(forRest) {
		t.Error("no attempt for a payload after its header")
	}
	b.end(true)
	off := newBusyPoll(-1)
	if off.begin(forAnswer) {
		t.Error("an attempt although it is off")
	}
}

func TestBusyPollIsBoundedOverAllConnections(t *testing.T) {
	var started []*busyPoll
	for range 1000 {
		b := newBusyPoll(time.Microsecond)
		if b.begin(forAnswer) {
			started = append(started, &b)
		}
	}
	for _, b := range started {
		b.end(true)
	}
	if n := len(started); n < 1 || n > 500 {
		t.Errorf("%d at once", n)
	}
	if n := pollers.Load(); n != 0 {
		t.Errorf("%d are counted at the end", n)
	}
}
