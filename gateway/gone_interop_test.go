//go:build interop

package gateway

import (
	"context"
	"fmt"
	"testing"

	"sluice/block"
	"sluice/gateway/spec"
)

// A removal without force by a client that has gone is given up before anything is
// done, or done: the export does not go on without its file.
func TestRemovalByAClientThatHasGone(t *testing.T) {
	h := newHouseWithFiles(t, nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for n := range 20 { // what has ended is found first, or the file has gone first
		name := fmt.Sprint("a", n)
		h.add(spec.Spec{Name: name, URL: "mem://1M"})
		kindIs(t, "a removal by nobody", h.Remove(gone, name, false), block.Canceled)
		if st, err := h.Show(name); err != nil || st.File == "" || st.FileError != "" {
			t.Fatalf("%+v, %v", st, err)
		}
		e, err := h.find("test", name)
		if err != nil {
			t.Fatal(err)
		}
		e.control.take()
		err = e.withdraw(gone, false)
		e.control.unlock()
		if err != nil {
			t.Fatalf("a removal whose client goes while it is done: %v", err)
		}
	}
}
