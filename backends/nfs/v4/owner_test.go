package v4

import (
	"strings"
	"testing"
)

func TestOwnersOfOneHostDiffer(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	a := newOwner("server.test:2049", 0)
	b := newOwner("server.test:2049", 0)
	defer b.release()
	if a.name == b.name {
		t.Errorf("two at once are both %q", a.name)
	}
	was, verifier := a.name, a.verifier
	a.release()
	again := newOwner("server.test:2049", 0)
	defer again.release()
	if again.name != was || again.verifier == verifier {
		t.Errorf("the next is %q with the same verifier %v, want %q and another", again.name, again.verifier == verifier, was)
	}
	if other := newOwner("server.test:2049", 36); strings.HasPrefix(other.name, "sluice "+again.key) {
		t.Error("two users have the same name")
	}
}
