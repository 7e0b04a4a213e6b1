package main

import (
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStageCleansUpInReverseAndKeepsTheFailure(t *testing.T) {
	s := &stage{}
	var order []int
	var dir string
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Cleanup(func() { order = append(order, 1) })
		dir = s.TempDir()
		s.Cleanup(func() { order = append(order, 2) })
		s.Fatalf("%s", "as it should")
		order = append(order, 3)
	}()
	<-done
	s.clean()
	if !s.Failed() || !slices.Equal(order, []int{2, 1}) {
		t.Errorf("failed %v, order %v", s.Failed(), order)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
}
