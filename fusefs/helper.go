package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// fusermount mounts and unmounts for ordinary users: a setuid program of the
// package fuse3.
const fusermount = "fusermount3"

// attachByHelper lets fusermount3 mount. It sends the descriptor of /dev/fuse
// over a socket.
func (fs *FS) attachByHelper() (fd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(pair[0]) }()
	options := "default_permissions,nosuid,nodev,noexec,noatime,subtype=" + fsType + ",fsname=" + escapeOption(fs.cfg.FSName) +
		fmt.Sprintf(",max_read=%d", maxWrite)
	if fs.cfg.AllowOther {
		options += ",allow_other"
	}
	cmd := exec.Command(fusermount, "-o", options, "--", fs.cfg.Dir)
	far := os.NewFile(uintptr(pair[1]), "fusermount's end")
	cmd.ExtraFiles = []*os.File{far}
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	text, err := cmd.CombinedOutput()
	_ = far.Close()
	if err != nil {
		return -1, helperError(text, err)
	}
	return receiveFD(pair[0])
}

func helperError(text []byte, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("only root mounts without the program %s (package fuse3): %w", fusermount, err)
	}
	if said := strings.TrimSpace(string(text)); said != "" {
		return fmt.Errorf("%s: %w", said, err)
	}
	return fmt.Errorf("%s: %w", fusermount, err)
}

// receiveFD takes a descriptor out of a socket.
func receiveFD(sock int) (int, error) {
	var data [16]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, data[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, fmt.Errorf("%s sent no descriptor", fusermount)
}

// detachByHelper unmounts.
func detachByHelper(dir string) error {
	if text, err := exec.Command(fusermount, "-u", "-z", "--", dir).CombinedOutput(); err != nil {
		return helperError(text, err)
	}
	return nil
}

// escapeOption puts a text into a list of mount options.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}
