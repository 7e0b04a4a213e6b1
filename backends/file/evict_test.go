package file

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// evict drops a synced file from the page cache until gone says that it is no
// longer there. Once is not always enough: the kernel passes over pages that
// something else holds at the moment, and reading ahead may bring them back.
func evict(t *testing.T, fd int, gone func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		if gone() {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the file stays in the page cache")
		}
	}
}
