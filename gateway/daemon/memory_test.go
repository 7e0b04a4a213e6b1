package daemon

import (
	"bytes"
	"testing"

	"sluice/block"
)

// again opens the file as the next process does.
func again(t *testing.T, m *memory) *memory {
	t.Helper()
	next, err := openMemory(m.file)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestMemory(t *testing.T) {
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.close() }()
	if _, err := openMemory(m.file); block.KindOf(err) != block.Corrupt {
		t.Errorf("an empty one: %v", err)
	}
	for _, text := range []string{"one", "two, longer", "3", ""} {
		if err := m.write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if m = again(t, m); string(m.content) != text {
			t.Errorf("%q, want %q", m.content, text)
		}
	}
	if err := m.write(make([]byte, slotSize)); block.KindOf(err) != block.NoSpace {
		t.Errorf("too much: %v", err)
	}
	if again(t, m).seq != m.seq {
		t.Error("a refused write has changed something")
	}
}

// A process that is killed while it writes leaves the older content, wherever it
// was.
func TestTornMemory(t *testing.T) {
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.close() }()
	old, next := bytes.Repeat([]byte("old "), 50), bytes.Repeat([]byte("next"), 60)
	if err := m.write(old); err != nil {
		t.Fatal(err)
	}
	if err := m.write(next); err != nil {
		t.Fatal(err)
	}
	slot := int64(m.seq%2) * slotSize
	whole := make([]byte, slotHead+len(next))
	if _, err := m.file.ReadAt(whole, slot); err != nil {
		t.Fatal(err)
	}
	for cut := range whole {
		torn := append(bytes.Clone(whole[:cut]), bytes.Repeat([]byte{0x55}, len(whole)-cut)...)
		if _, err := m.file.WriteAt(torn, slot); err != nil {
			t.Fatal(err)
		}
		if got := again(t, m).content; !bytes.Equal(got, old) {
			t.Fatalf("cut at %d: %q", cut, got)
		}
	}
}

func TestMountPaths(t *testing.T) {
	for text, want := range map[string]string{`/a\040b`: "/a b", `/tab\011`: "/tab\t", `/back\134slash`: `/back\slash`} {
		if got := unescape(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if on := mountedAt("/proc"); on.kind != "proc" || on.device == "" {
		t.Errorf("/proc: %+v", on)
	}
	if on := mountedAt(t.TempDir()); on != (mounted{}) {
		t.Errorf("an ordinary folder: %+v", on)
	}
}
