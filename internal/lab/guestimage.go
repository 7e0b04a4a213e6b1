package lab

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
)

//go:embed guest/init
var guestInitScript []byte

// The Debian packages that a guest is made of. They are downloaded and taken
// apart; neither is installed.
const (
	kernelPackage  = "linux-image-cloud-amd64" // depends on the one that holds the kernel
	busyboxPackage = "busybox-static"
)

// guestFiles says which files of the packages the guest needs, and as what.
var guestFiles = []struct {
	path *regexp.Regexp // in the package
	name string         // in the initrd; $1 is the first group of path
	mode int
	nfsd bool // for those with the kernel's NFS server only
	want int  // so many files
}{
	{regexp.MustCompile(`^\./(?:usr/)?bin/busybox$`), "bin/busybox", cpioExec, false, 1},
	{regexp.MustCompile(`/(virtio|virtio_ring|virtio_pci_modern_dev|virtio_pci_legacy_dev|virtio_pci|virtio_blk)\.ko(?:\.xz)?$`), "mod/$1.ko", cpioFile, false, 6},
	{regexp.MustCompile(`/(failover|net_failover|virtio_net|libcrc32c|xfs|sunrpc|grace|lockd|nfs_acl|auth_rpcgss|nfsd)\.ko(?:\.xz)?$`), "mod/$1.ko", cpioFile, true, 11},
}

// guestImage returns the folder in the lab's cache that holds the guest's
// kernel, "vmlinuz", the initrd that all guests share, and "nfsd", what those that
// serve NFS have besides, and makes it if need be. Processes that run at the same time take turns.
var guestImage = sync.OnceValues(func() (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("guests are made for amd64 only, this is %s", runtime.GOARCH)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	// A change of the init script, or of what there is, makes another image.
	key := guestInitScript[:len(guestInitScript):len(guestInitScript)]
	for _, f := range guestFiles {
		key = append(key, f.path.String()...)
	}
	sum := sha256.Sum256(key)
	dir := filepath.Join(cache, "guest-"+hex.EncodeToString(sum[:4]))
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	half, err := os.MkdirTemp(cache, "guest")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(half) }()
	if err := makeGuestImage(half); err != nil {
		return "", err
	}
	return dir, os.Rename(half, dir)
})

// makeGuestImage downloads the packages and writes vmlinuz and initrd to dir.
func makeGuestImage(dir string) error {
	work, err := os.MkdirTemp("", "sluice-guest")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	debs, err := downloadGuest(work)
	if err != nil {
		return err
	}
	parts := newGuestParts()
	for _, deb := range debs {
		if err := readDeb(deb, parts.add); err != nil {
			return err
		}
	}
	if want := guestFilesWanted(); parts.kernel == nil || parts.found != want {
		return fmt.Errorf("the packages hold %d of the guest's %d files, and a kernel of %d bytes", parts.found, want, len(parts.kernel))
	}
	if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), parts.kernel, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "nfsd"), parts.nfsd.bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "initrd"), parts.initrd.bytes(), 0o644)
}

func guestFilesWanted() (n int) {
	for _, f := range guestFiles {
		n += f.want
	}
	return n
}

// guestParts are what a guest takes of the packages.
type guestParts struct {
	kernel []byte
	initrd cpioArchive
	nfsd   cpioArchive // modules, to be unpacked behind it
	found  int         // how many of guestFiles
}

func newGuestParts() *guestParts {
	p := new(guestParts)
	for _, name := range []string{"bin", "mod"} {
		p.initrd.add(name, cpioDir, nil)
	}
	p.initrd.add("init", cpioExec, guestInitScript)
	return p
}

// add takes a file of a package if the guest needs it. Newer kernel packages hold
// their modules compressed; the guest's busybox does not unpack them.
func (p *guestParts) add(path string, data []byte) error {
	if strings.HasPrefix(path, "./boot/vmlinuz-") {
		p.kernel = data
		return nil
	}
	for _, f := range guestFiles {
		m := f.path.FindStringSubmatchIndex(path)
		if m == nil {
			continue
		}
		if strings.HasSuffix(path, ".xz") {
			var err error
			if data, err = unxz(data); err != nil {
				return fmt.Errorf("unpack %s: %w", path, err)
			}
		}
		archive := &p.initrd
		if f.nfsd {
			archive = &p.nfsd
		}
		archive.add(string(f.path.ExpandString(nil, f.name, path, m)), f.mode, data)
		p.found++
	}
	return nil
}

// unxz decompresses with xz, which is in every Debian (package xz-utils).
func unxz(data []byte) ([]byte, error) {
	cmd := exec.Command("xz", "--decompress", "--stdout")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// downloadGuest downloads the packages to dir. Where apt does not know them, or
// knows versions that are gone, its lists are brought up to date, which takes
// root.
func downloadGuest(dir string) ([]string, error) {
	err := tryDownloadGuest(dir)
	if err != nil && os.Geteuid() == 0 {
		if text, upErr := exec.Command("apt-get", "update", "-q").CombinedOutput(); upErr != nil {
			return nil, fmt.Errorf("apt-get update: %w\n%s", upErr, text)
		}
		err = tryDownloadGuest(dir)
	}
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*.deb"))
}

var dependsLine = regexp.MustCompile(`(?m)^\s*Depends: (linux-image-\S+)`)

func tryDownloadGuest(dir string) error {
	text, err := exec.Command("apt-cache", "depends", kernelPackage).CombinedOutput()
	if err != nil {
		return fmt.Errorf("apt-cache depends %s: %w: %s", kernelPackage, err, bytes.TrimSpace(text))
	}
	kernel := dependsLine.FindSubmatch(text)
	if kernel == nil {
		return fmt.Errorf("apt does not know %s (apt-get update)", kernelPackage)
	}
	cmd := exec.Command("apt-get", "download", "-q", string(kernel[1]), busyboxPackage)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download: %w: %s", err, bytes.TrimSpace(text))
	}
	return nil
}

// readDeb hands every regular file of a Debian package that can matter to visit.
func readDeb(deb string, visit func(path string, data []byte) error) (err error) {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := readTar(pipe, visit)
	// dpkg-deb complains when nobody reads on, so take the rest.
	_, copyErr := io.Copy(io.Discard, pipe)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("dpkg-deb %s: %w: %s", filepath.Base(deb), err, stderr.Bytes())
	}
	return errors.Join(readErr, copyErr)
}

// readTar is readDeb for the tar archive inside.
func readTar(r io.Reader, visit func(path string, data []byte) error) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		if err := visit(h.Name, data); err != nil {
			return err
		}
	}
}
