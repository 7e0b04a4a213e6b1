package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"sluice/block"
)

// Names in the folder.
const (
	fileName = "state.db"
	newName  = "state.db.new" // until it is whole
	lockName = "state.lock"
)

// version is that of what the file holds. Versions so far:
//
//	1  buckets meta (version, next, sum) and exports (name: checksum, JSON of a Record)
const version = 1

// Buckets and keys.
var (
	metaBucket    = []byte("meta")
	exportsBucket = []byte("exports")
	versionKey    = []byte("version") // uint64, big-endian
	nextKey       = []byte("next")    // uint64, big-endian: no number from it on was given out
	sumKey        = []byte("sum")     // a sum of all records
)

// State is an open state folder.
type State struct {
	path string // of the file
	db   *bbolt.DB
	file *os.File // db's own
	lock *os.File

	turn sync.Mutex
	room int64 // bytes of the file that the disk has promised; turn's

	mu      sync.Mutex
	waiting []*change
	closed  bool
	next    uint64 // the next number to give out
	end     uint64 // numbers from it on have to be taken from the file first
}

// DefaultFolder gives the folder where a daemon keeps its state when it is told
// nothing: the service manager's, /var/lib/sluice for root, and
// $XDG_STATE_HOME/sluice for everybody else.
func DefaultFolder() (string, error) {
	return defaultFolder(os.Geteuid(), os.Getenv)
}

func defaultFolder(uid int, env func(string) string) (string, error) {
	if dir := env("STATE_DIRECTORY"); filepath.IsAbs(dir) { // of several, the first
		return filepath.SplitList(dir)[0], nil
	}
	if uid == 0 {
		return "/var/lib/sluice", nil
	}
	if base := env("XDG_STATE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "sluice"), nil
	}
	if home := env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local/state/sluice"), nil
	}
	return "", block.Errorf(block.NotFound, "find the state folder", "", -1, "HOME is not set; say where with --state DIR")
}

// Open opens the state in a folder, which it makes where it is missing; the
// folder is for the owner alone (mode 0700). It fails with kind Busy when
// another process has it open, Corrupt when the file is damaged, Unsupported
// when a newer version wrote it; nothing is changed then.
func Open(dir string) (*State, error) {
	if err := makeFolder(dir); err != nil {
		return nil, block.Wrap(causeOf(err), "open state", dir, -1)
	}
	lock, err := lockFolder(dir, lockWait)
	if err != nil {
		return nil, err
	}
	s, err := open(dir)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return s, nil
}

// makeFolder makes the folder, or takes other users' rights away from it.
func makeFolder(dir string) error {
	st, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return syncFolder(filepath.Dir(dir))
	}
	if err != nil || st.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// open opens the file; the folder's lock is held.
func open(dir string) (*State, error) {
	path := filepath.Join(dir, fileName)
	_, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := create(dir); err != nil {
			return nil, block.Wrap(causeOf(err), "make state", path, -1)
		}
	case err != nil:
		return nil, block.Wrap(causeOf(err), "open state", path, -1)
	}
	if err := verify(path); err != nil {
		return nil, err
	}
	s := &State{path: path}
	opts := options()
	opts.OpenFile = func(path string, flag int, mode os.FileMode) (f *os.File, err error) {
		s.file, err = os.OpenFile(path, flag, mode)
		return s.file, err
	}
	if s.db, err = bbolt.Open(path, 0o600, opts); err != nil {
		return nil, block.Wrap(causeOf(err), "open state", path, -1)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	if st, err := s.file.Stat(); err == nil {
		_ = s.allocate(st.Size()) // it is, unless somebody copied it; who adds is told
	}
	return s, nil
}

// options are how the file is opened. A free list that is not written saves a
// page for each transaction; to find it again takes a walk through a file that
// is read at the start anyway. A map that is large enough from the beginning is
// never remapped, and the file grows to its size at once instead of in steps,
// each of which is another sync.
func options() *bbolt.Options {
	return &bbolt.Options{
		Timeout:         time.Second, // the folder's lock is held already
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 1 << 20,
	}
}

// create makes an empty file under another name and puts it in place when it is
// whole, so that a crash in between leaves none.
func create(dir string) error {
	path := filepath.Join(dir, newName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(path, 0o600, options())
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(exportsBucket); err != nil {
			return err
		}
		return errors.Join(meta.Put(versionKey, number(version)), meta.Put(nextKey, number(firstID)),
			meta.Put(sumKey, sum{}.bytes()))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if err := os.Rename(path, filepath.Join(dir, fileName)); err != nil {
		return err
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// load checks the version and reads every record once, so that what cannot be
// read is found now.
func (s *State) load() error {
	err := s.db.View(func(tx *bbolt.Tx) error {
		meta, exports := tx.Bucket(metaBucket), tx.Bucket(exportsBucket)
		if meta == nil {
			return s.corrupt("it is a bbolt file of something else")
		}
		v, ok := numberOf(meta.Get(versionKey))
		if ok && v > version {
			return block.Errorf(block.Unsupported, "open state", s.path, -1,
				"a newer version of sluice wrote it (format %d, this one knows %d)", v, version)
		}
		next, known := numberOf(meta.Get(nextKey))
		if !ok || v == 0 || !known || exports == nil {
			return s.corrupt("something is missing in it")
		}
		s.next, s.end = next, next
		var found sum
		err := exports.ForEach(func(name, value []byte) error {
			r, err := decode(value)
			if err != nil || r.Spec.Name != string(name) || r.ID >= next {
				return s.corrupt("the record of export %q is damaged", name)
			}
			found.add(name, value)
			return nil
		})
		if err == nil && !bytes.Equal(found.bytes(), meta.Get(sumKey)) {
			return s.corrupt("records are missing in it, or too many")
		}
		return err
	})
	return err
}

func (s *State) corrupt(format string, args ...any) error {
	return block.Errorf(block.Corrupt, "open state", s.path, -1, format, args...)
}

// Close gives the folder back. Calls that are being written end first.
func (s *State) Close() error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	return errors.Join(s.db.Close(), s.lock.Close())
}

// Path gives the path of the file.
func (s *State) Path() string { return s.path }

// number writes a number as it is in the file.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func numberOf(b []byte) (n uint64, ok bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// causeOf takes paths, which the error names anyway, out of a cause.
func causeOf(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		return block.Errorf(block.Busy, "lock", "", -1, "another process has it open")
	}
	return err
}
