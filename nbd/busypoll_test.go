package nbd

import (
	"testing"
	"time"
)

func TestBusyPollIsGivenUpWhereItDoesNotPay(t *testing.T) {
	b := newBusyPoll(time.Microsecond)
	if b.begin() {
		t.Fatal("an attempt before any request")
	}
	b.received(requestSize)
	failures := 0
	for b.begin() {
		b.end(false)
		failures++
	}
	if failures != maxCredit/failureCost {
		t.Errorf("%d failures in a row", failures)
	}
	attempts := 0
	for range 10 * retryAfter {
		if b.begin() {
			b.end(false)
			attempts++
		}
	}
	if attempts < 8 || attempts > 10 {
		t.Errorf("%d attempts in %d receives that do not pay", attempts, 10*retryAfter)
	}
	for !b.begin() {
	}
	b.end(true) // it pays again
	if !b.begin() {
		t.Error("no attempt after a success")
	}
	b.end(true)
}

func TestBusyPollOnlyBetweenSingleSmallRequests(t *testing.T) {
	b := newBusyPoll(time.Microsecond)
	b.received(2 * requestSize)
	if b.begin() {
		t.Error("an attempt after a batch")
	}
	off := newBusyPoll(-1)
	off.received(requestSize)
	if off.begin() {
		t.Error("an attempt although it is off")
	}
}

func TestBusyPollIsBoundedOverAllConnections(t *testing.T) {
	var started []*busyPoll
	for range 1000 {
		b := newBusyPoll(time.Microsecond)
		b.received(requestSize)
		if b.begin() {
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
