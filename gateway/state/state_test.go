package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"sluice/block"
	"sluice/gateway/spec"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("STATE_TEST_ADD_IN"); dir != "" {
		addForEver(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func open1(t *testing.T, dir string) *State {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// record is one with a number of its own.
func record(t testing.TB, s *State, name string) Record {
	t.Helper()
	id, err := s.NextID()
	if err != nil {
		t.Fatal(err)
	}
	return Record{Spec: specOf(name), ID: id, Source: "api"}
}

func specOf(name string) spec.Spec {
	return spec.Spec{
		Name: name, URL: "nbd://user:secret@host/" + name, NBD: []string{"unix:/run/" + name},
		Settings: spec.Settings{Throttle: spec.Throttle{ReadBytes: 10 << 20, Burst: spec.Duration(time.Second)}},
	}
}

func all(t testing.TB, s *State) []Record {
	t.Helper()
	got, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRecordsComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/state")
	s := open1(t, dir)
	var want []Record
	for i := range 5 {
		r := record(t, s, fmt.Sprintf("vm %d", 9-i)) // their order is not that of their names
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
		want = append(want, r)
	}
	want[1].Spec.ReadOnly = true
	if err := errors.Join(s.Put(want[1]), s.Delete(want[0].Spec.Name)); err != nil {
		t.Fatal(err)
	}
	want = want[1:]
	if diff := cmp.Diff(want, all(t, s)); diff != "" {
		t.Error(diff)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open1(t, dir)
	if diff := cmp.Diff(want, all(t, s)); diff != "" {
		t.Error(diff)
	}
	if next := record(t, s, "x"); next.ID <= want[3].ID {
		t.Errorf("number %d was given out again", next.ID)
	}
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := open1(t, dir)
	for path, want := range map[string]os.FileMode{dir: 0o700, s.Path(): 0o600, filepath.Join(dir, lockName): 0o600} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestOneDaemonAtATime(t *testing.T) {
	dir := t.TempDir()
	s := open1(t, dir)
	_, err := lockFolder(dir, 30*time.Millisecond)
	want := "open state " + dir + ": another daemon uses this folder (each needs its own: --state DIR)"
	if block.KindOf(err) != block.Busy || err.Error() != want {
		t.Error(err)
	}
	ended := make(chan error, 1)
	go func() {
		other, err := Open(dir) // waits
		if err == nil {
			err = other.Close()
		}
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	s := open1(t, t.TempDir())
	r := record(t, s, "a")
	for _, c := range []struct {
		err  error
		kind block.Kind
		text string
	}{
		{s.Delete("b"), block.NotFound, "forget export b: not found"},
		{s.Delete(""), block.NotFound, "forget export: not found"},
		{s.Put(Record{Spec: specOf("a")}), block.Invalid, "keep export a: number 0 was not given out"},
		{s.Put(Record{Spec: specOf("a"), ID: 1}), block.Invalid, "keep export a: number 1 was not given out"},
		{s.Put(Record{Spec: specOf("a"), ID: r.ID + 1}), block.Invalid, "keep export a: number 3 was not given out"},
		{s.Put(Record{Spec: specOf("a/b"), ID: r.ID}), block.Invalid, `check export "a/b": the name cannot be a file's name`},
	} {
		if block.KindOf(c.err) != c.kind || c.err.Error() != c.text {
			t.Errorf("%v, want %s", c.err, c.text)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, listed := s.All()
	_, numbered := s.NextID()
	for _, err := range []error{s.Put(r), s.Delete("a"), listed, numbered} {
		if block.KindOf(err) != block.Closed {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestNumbersAreNotGivenOutTwice takes more than are reserved at once, from many
// goroutines and over several lives.
func TestNumbersAreNotGivenOutTwice(t *testing.T) {
	dir := t.TempDir()
	seen := map[uint64]bool{0: true, 1: true}
	for range 3 {
		s := open1(t, dir)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range reserve {
					id, err := s.NextID()
					mu.Lock()
					if err != nil || seen[id] {
						t.Errorf("%d: %v", id, err)
					}
					seen[id] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 3*8*reserve+2 {
		t.Errorf("%d numbers", len(seen))
	}
}

// TestManyCallers adds and removes from many goroutines at once.
func TestManyCallers(t *testing.T) {
	s := open1(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				name := fmt.Sprintf("%d-%d", i, j)
				r := record(t, s, name)
				if err := s.Put(r); err != nil {
					t.Error(err)
				}
				if j%2 == 0 {
					continue
				}
				if err := s.Delete(name); err != nil {
					t.Error(err)
				}
				if err := s.Delete(name); block.KindOf(err) != block.NotFound {
					t.Errorf("a second time: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := all(t, s); len(got) != 16*10 {
		t.Errorf("%d records", len(got))
	}
}

// TestThousandAdds: each is durable before the next one begins.
func TestThousandAdds(t *testing.T) {
	dir := t.TempDir()
	s := open1(t, dir)
	start := time.Now()
	for i := range 1000 {
		if err := s.Put(record(t, s, fmt.Sprintf("vm%04d", i))); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("1000 one after the other: %v", time.Since(start).Round(time.Millisecond))
	var wg sync.WaitGroup
	start = time.Now()
	for i := range 1000 {
		wg.Go(func() {
			if err := s.Put(record(t, s, fmt.Sprintf("other%04d", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("1000 at once: %v", time.Since(start).Round(time.Millisecond))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	s = open1(t, dir)
	if got := all(t, s); len(got) != 2000 || got[0].Spec.Name != "vm0000" {
		t.Errorf("%d records", len(got))
	}
	st, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("open and list 2000: %v, file of %d bytes", time.Since(start).Round(time.Millisecond), st.Size())
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for i := 0; b.Loop(); i++ {
		if err := s.Put(record(b, s, fmt.Sprintf("vm%d", i%1000))); err != nil {
			b.Fatal(err)
		}
	}
}

// change1 changes the file of a closed state.
func change1(t *testing.T, dir string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, options())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// filled makes a state with some records and closes it.
func filled(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s := open1(t, dir)
	for i := range n {
		if err := s.Put(record(t, s, fmt.Sprintf("vm%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := filled(t, 1)
	change1(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(versionKey, number(version+1)) })
	before := content(t, dir)
	_, err := Open(dir)
	want := "open state " + dir + "/state.db: a newer version of sluice wrote it (format 2, this one knows 1)"
	if block.KindOf(err) != block.Unsupported || err.Error() != want {
		t.Error(err)
	}
	if content(t, dir) != before {
		t.Error("the file was changed")
	}
}

func content(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestDamagedRecords(t *testing.T) {
	for what, f := range map[string]func(*bbolt.Tx) error{
		`the record of export "vm0" is damaged`: func(tx *bbolt.Tx) error {
			value := append([]byte(nil), tx.Bucket(exportsBucket).Get([]byte("vm0"))...)
			value[30] ^= 1
			return tx.Bucket(exportsBucket).Put([]byte("vm0"), value)
		},
		`the record of export "other" is damaged`: func(tx *bbolt.Tx) error {
			return tx.Bucket(exportsBucket).Put([]byte("other"), tx.Bucket(exportsBucket).Get([]byte("vm0")))
		},
		`the record of export "x" is damaged`:    func(tx *bbolt.Tx) error { return tx.Bucket(exportsBucket).Put([]byte("x"), nil) },
		"records are missing in it, or too many": func(tx *bbolt.Tx) error { return tx.Bucket(exportsBucket).Delete([]byte("vm0")) },
		"something is missing in it":             func(tx *bbolt.Tx) error { return tx.DeleteBucket(exportsBucket) },
		"it is a bbolt file of something else":   func(tx *bbolt.Tx) error { return tx.DeleteBucket(metaBucket) },
	} {
		dir := filled(t, 2)
		change1(t, dir, f)
		if _, err := Open(dir); block.KindOf(err) != block.Corrupt || err.Error() != "open state "+dir+"/state.db: "+what {
			t.Errorf("%v, want %s", err, what)
		}
	}
}

// TestDamagedFiles: whatever is done to the file, Open tells so or sees what was
// there, and changes nothing.
func TestDamagedFiles(t *testing.T) {
	dir := filled(t, 300) // more than one level of pages
	whole := content(t, dir)
	path := filepath.Join(dir, fileName)
	try := func(what, data string) (refused bool) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err == nil {
			if got := all(t, s); len(got) < 299 { // the older of two roots may count
				t.Errorf("%s: %d records, and no error", what, len(got))
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			return false
		}
		if block.KindOf(err) != block.Corrupt || !strings.HasPrefix(err.Error(), "open state "+path+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if content(t, dir) != data {
			t.Errorf("%s: the file was changed", what)
		}
		return true
	}
	for _, n := range []int{0, 1, 100, 4096, 8192, 8193, 40960} {
		if !try(fmt.Sprintf("cut to %d bytes", n), whole[:n]) {
			t.Errorf("cut to %d bytes, and not refused", n)
		}
	}
	if !try("zeros", strings.Repeat("\x00", len(whole))) || !try("text", strings.Repeat("no state\n", 1000)) {
		t.Error("something else was taken for a state")
	}
	refused, tries := 0, 0
	used := strings.TrimRight(whole, "\x00")
	random := rand.New(rand.NewPCG(1, 2))
	for tries < 200 {
		at := random.IntN(len(used))
		if tries%2 == 0 { // where pages begin, most of all
			at = at/4096*4096 + at%96
		}
		with := []byte{0x00, 0xFF, used[at] ^ 0x10, used[at] + 1}[random.IntN(4)]
		if at >= len(used) || used[at] == with {
			continue
		}
		data := []byte(whole)
		data[at] = with
		tries++
		if try(fmt.Sprintf("byte %d = %#x", at, with), string(data)) {
			refused++
		}
	}
	t.Logf("%d of %d damages were refused; the others are in free pages, or in one of two roots", refused, tries)
}

func TestUnfinishedFileIsNoState(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, newName), []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open1(t, dir)
	if got := all(t, s); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestFolderCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file + "/x"); err == nil || err.Error() != "open state "+file+"/x: not a directory" {
		t.Error(err)
	}
	if _, err := Open(file); err == nil || err.Error() != "open state "+file+": not a directory" {
		t.Error(err)
	}
}

func TestDefaultFolder(t *testing.T) {
	for _, c := range []struct {
		uid  int
		env  map[string]string
		want string
	}{
		{0, nil, "/var/lib/sluice"},
		{0, map[string]string{"STATE_DIRECTORY": "/a:/b"}, "/a"},
		{7, map[string]string{"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/sluice"},
		{7, map[string]string{"XDG_STATE_HOME": "s", "HOME": "/h"}, "/h/.local/state/sluice"},
		{7, nil, ""},
	} {
		got, err := defaultFolder(c.uid, func(k string) string { return c.env[k] })
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}
