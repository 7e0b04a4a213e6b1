package suite

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/bench/report"
)

// Machine describes the machine that this runs on; dir is where the image lies.
func Machine(dir string) (report.Machine, error) {
	fs, err := fileSystem(dir)
	if err != nil {
		return report.Machine{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return report.Machine{}, err
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return report.Machine{}, err
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return report.Machine{}, err
	}
	system := "unknown"
	if release, err := os.ReadFile("/etc/os-release"); err == nil {
		system = strings.Trim(after(release, "PRETTY_NAME", "="), `"`)
	}
	kib, _, _ := strings.Cut(after(meminfo, "MemTotal", ":"), " ")
	memory, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		return report.Machine{}, err
	}
	cpu := after(cpuinfo, "model name", ":")
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	return report.Machine{
		CPU: cpu, Cores: runtime.NumCPU(), MemoryMiB: memory >> 10,
		Kernel: unix.ByteSliceToString(uts.Release[:]), System: system, FileSystem: fs,
	}, nil
}

// after returns the value of the first line "key SEPARATOR value", or "".
func after(data []byte, key, separator string) string {
	for line := range strings.Lines(string(data)) {
		k, v, ok := strings.Cut(line, separator)
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Programs asks the servers and clients of the plan for their versions.
func (p Plan) Programs(ctx context.Context) []report.Program {
	var out []report.Program
	seen := map[string]bool{}
	add := func(name string, ask func() string) {
		if !seen[name] {
			seen[name] = true
			out = append(out, report.Program{Name: name, Version: ask()})
		}
	}
	for _, s := range p.Servers {
		switch {
		case s.Name == "go-nbd":
			add("go-nbd", func() string { return moduleVersion("github.com/pojntfx/go-nbd") })
		case len(s.version) > 0:
			args := Places{Sluice: p.Sluice}.fill(s.version)
			add(strings.Trim(s.version[0], "{}"), func() string { return firstLine(ctx, args) })
		}
	}
	if slices.ContainsFunc(p.Servers, func(s Server) bool { return s.Kind == report.NFS }) {
		add("nfs-ganesha", func() string { return firstLine(ctx, []string{"ganesha.nfsd", "-v"}) })
	}
	for _, w := range p.Workloads {
		program := "fio"
		if w.Copy {
			program = "nbdcopy"
		}
		add(program, func() string { return firstLine(ctx, []string{program, "--version"}) })
	}
	add("go", runtime.Version)
	return out
}

func firstLine(ctx context.Context, args []string) string {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || line == "" {
		return "unknown"
	}
	return line
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}
