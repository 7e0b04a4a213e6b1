package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"sluice/block"
)

// TestKinds: every kind has a name of its own that leads back to it, and a status
// of a failure; names of kinds that are not known are of a failure too.
func TestKinds(t *testing.T) {
	names := KindNames()
	if len(names) != int(block.Canceled) {
		t.Errorf("%d names", len(names))
	}
	for i, name := range names {
		kind := block.Kind(i + 1)
		if KindName(kind) != name || KindNamed(name) != kind || name == "" {
			t.Errorf("%v: %q, %v", kind, KindName(kind), KindNamed(name))
		}
		if status := HTTPStatus(kind); status < 400 || http.StatusText(status) == "" {
			t.Errorf("%v: status %d", kind, status)
		}
	}
	for _, name := range []string{"ok", "", "brand-new"} {
		if got := KindNamed(name); got != block.IO {
			t.Errorf("%q is %v", name, got)
		}
	}
	if KindName(200) != "io" || HTTPStatus(200) != 500 {
		t.Error("an unknown kind is not told as one of unknown failures")
	}
}

// TestProblemKeepsTheError through JSON.
func TestProblemKeepsTheError(t *testing.T) {
	inner := block.Errorf(block.NoSpace, "write", "disk: a", 512, "full\nto the brim")
	for _, c := range []struct {
		err              error
		op, object, text string
	}{
		{inner, "write", "disk: a", "write disk: a at 512: full; to the brim"},
		{block.Errorf(block.Busy, "open", "a", -1, ""), "open", "a", "open a: in use"},
		{block.Errorf(block.Busy, "open", "", -1, "why: so"), "open", "", "open: why: so"},
		{fmt.Errorf("add export: %w", inner), "", "", "add export: write disk: a at 512: full; to the brim"},
		{errors.Join(inner, context.Canceled), "", "", "write disk: a at 512: full; to the brim; context canceled"},
		{errors.New("boom"), "", "", "boom"},
	} {
		text, err := json.Marshal(ProblemOf(c.err))
		if err != nil {
			t.Fatal(err)
		}
		var p Problem
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		if p.Operation != c.op || p.Object != c.object || p.Detail != c.text || p.Error() != c.text {
			t.Errorf("%v: %+v", c.err, p)
		}
		back := p.Err()
		want := c.text
		if c.text == "boom" {
			want = "boom: input/output error" // an Error has a cause or tells its kind
		}
		if back.Error() != want || back.Kind != block.KindOf(c.err) {
			t.Errorf("%v became %v (%v)", c.err, back, back.Kind)
		}
	}
}
