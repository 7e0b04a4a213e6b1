package daemon

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/block"
	"sluice/fusefs"
)

// sluiceType is the type of our mounts, also of those of sluice serve.
const sluiceType = "fuse.sluice"

// cleanUp unmounts what a killed daemon has left behind at the folder. Somebody
// else's mount is left alone, and is an error when it comes to mounting.
func (d *daemon) cleanUp(dir string) error {
	if mountedAt(dir).kind != sluiceType {
		return nil
	}
	if !fusefs.Dead(dir) {
		return nil
	}
	d.Log.Warn("unmounting what an earlier daemon left behind", "mount", dir)
	return block.Wrap(unix.Unmount(dir, unix.MNT_DETACH), "unmount", dir, -1)
}

// putAway unmounts what is not taken over, if that is still what is mounted at the
// folder: by now it may be something else, also of another Sluice.
func (d *daemon) putAway(fd *os.File, rec mountRecord) {
	if fusefs.Ended(int(fd.Fd())) { // another mount may have its number by now
		if err := d.cleanUp(rec.Dir); err != nil {
			d.Log.Warn("a dead mount is left", "err", err)
		}
	} else if on := mountedAt(rec.Dir); on.kind == sluiceType && on.device == rec.Device {
		_ = unix.Unmount(rec.Dir, unix.MNT_DETACH) // its connection ends with fd
	}
}

// mounted is what is mounted at a folder, on top; empty when nothing is.
type mounted struct {
	kind   string // such as fuse.sluice
	device string // MAJOR:MINOR, which no two have at a time
}

// mountedAt looks a folder up without asking whoever serves it, who may be gone or
// hang.
func mountedAt(dir string) (on mounted) {
	if parent, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil { // not of dir: it may be dead
		dir = filepath.Join(parent, filepath.Base(dir))
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return on
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS… - TYPE SOURCE OPTIONS
		head, tail, _ := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(head), strings.Fields(tail)
		if len(fields) > 4 && len(kind) > 0 && unescape(fields[4]) == dir {
			on = mounted{kind: kind[0], device: fields[2]}
		}
	}
	return on
}

// unescape reads a path as mountinfo writes it: octal codes for blanks and
// backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
