package gateway

import (
	"testing"

	"sluice/block"
	"sluice/gateway/spec"
)

// With the read-only policy an export freezes at the first failure, shows it, and
// takes changes again after it was told to, not before.
func TestReadOnlyPolicy(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.AllowFaults = true })
	frozen := spec.OnError{Policy: "read-only"}
	h.add(spec.Spec{Name: "a", URL: "mem://1M", Settings: spec.Settings{OnError: frozen}})
	c := h.dial("a")
	mustWrite(t, c, 0, []byte("before"))
	settings := spec.Settings{OnError: frozen, Faults: []string{"write:error=transient"}}
	if _, err := h.Change(t.Context(), "a", settings); err != nil {
		t.Fatal(err)
	}
	kindIs(t, "the write that fails", c.WriteAt(t.Context(), []byte("during"), 0, 0), block.IO)
	st, err := h.Show("a")
	if err != nil || st.State != Frozen || st.Error == "" || st.Since.IsZero() {
		t.Errorf("%+v, %v", st, err)
	}
	// The storage is back, and the policy is another one: both thaw nothing.
	for _, s := range []spec.Settings{{OnError: frozen}, {}} {
		if _, err := h.Change(t.Context(), "a", s); err != nil {
			t.Fatal(err)
		}
		kindIs(t, "a write while frozen", c.WriteAt(t.Context(), []byte("during"), 0, 0), block.ReadOnly)
		kindIs(t, "zeroes while frozen", c.WriteZeroes(t.Context(), 0, 4096, 0), block.ReadOnly)
		mustRead(t, c, 0, []byte("before"))
		if err := c.Flush(t.Context()); err != nil {
			t.Errorf("a flush while frozen: %v", err)
		}
	}
	if st, err := h.Gateway.Resume(t.Context(), "a"); err != nil || st.State != Serving || st.Error != "" {
		t.Errorf("%+v, %v", st, err)
	}
	mustWrite(t, c, 0, []byte("after!"))
	mustRead(t, c, 0, []byte("after!"))
	if c.Reconnects() != 0 {
		t.Error("the client was cut off")
	}
}
