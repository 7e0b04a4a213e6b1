package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// Sluice returns the path of the sluice binary: $SLUICE_BIN, which the Makefile
// sets, or else one built from this checkout, once per process.
func Sluice(t TB) string {
	t.Helper()
	if path := os.Getenv("SLUICE_BIN"); path != "" {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("SLUICE_BIN: %v (make build)", err)
		}
		return path
	}
	path, err := buildSluice()
	if err != nil {
		t.Fatalf("build sluice: %v", err)
	}
	return path
}

// buildSluice builds the binary into the lab's cache. Test processes that run
// at the same time take turns; go build puts a new file in place, so that one
// which is being executed stays whole.
var buildSluice = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	// Two checkouts on one machine must not use each other's binary.
	sum := sha256.Sum256([]byte(root))
	path := filepath.Join(cache, "bin-"+hex.EncodeToString(sum[:4]), "sluice")
	unlock, err := lockFile(filepath.Dir(path) + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./cmd/sluice")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, text)
	}
	return path, nil
})

// moduleRoot finds the folder of go.mod, upwards from the current one.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod in this folder or above it")
		}
		dir = filepath.Dir(dir)
	}
}

// cacheDir returns the folder for what is worth keeping between runs:
// $SLUICE_LAB_CACHE, or sluice-lab in the user's cache folder.
func cacheDir() (string, error) {
	dir := os.Getenv("SLUICE_LAB_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(base, "sluice-lab")
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// lockFile waits for an exclusive lock on a file, which it makes, against other
// processes.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, &os.PathError{Op: "lock", Path: path, Err: err}
		}
	}
}
