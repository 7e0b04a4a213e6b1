package suite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of CPU times in /proc. Linux shows them in 1/100 s to user space on every architecture
// that Go runs on.
const ticksPerSecond = 100

// usage is what a process and its descendants have used.
type usage struct {
	cpu float64 // seconds, user and system, of all threads, with children that have ended
	rss int64   // bytes
}

// procStat is the part of /proc/PID/stat that is needed.
type procStat struct {
	pid, parent int
	reapedTicks int64 // CPU time of children that have ended
	rssPages    int64
}

// parseProcStat reads one /proc/PID/stat (proc(5)): the name in parentheses may itself hold anything.
func parseProcStat(data []byte) (procStat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("malformed stat line %q", data)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:open])))
	fields := strings.Fields(string(data[end+1:])) // field 0 is the state, number 3 in proc(5)
	if err != nil || len(fields) < 22 {
		return procStat{}, fmt.Errorf("malformed stat line %q", data)
	}
	var errs []error
	number := func(i int) int64 {
		n, err := strconv.ParseInt(fields[i-3], 10, 64)
		errs = append(errs, err)
		return n
	}
	s := procStat{
		pid: pid, parent: int(number(4)),
		reapedTicks: number(16) + number(17),
		rssPages:    number(24),
	}
	return s, errors.Join(errs...)
}

// treeUsage sums up a process and everything below it.
func treeUsage(root int) (usage, error) {
	all, err := readProcesses()
	if err != nil {
		return usage{}, err
	}
	if _, ok := all[root]; !ok {
		return usage{}, fmt.Errorf("process %d is gone", root)
	}
	var u usage
	for _, s := range all {
		if !descends(all, s, root) {
			continue
		}
		cpu, err := processClock(s.pid)
		if err != nil && s.pid == root {
			return usage{}, err
		}
		u.cpu += cpu + float64(s.reapedTicks)/ticksPerSecond
		u.rss += s.rssPages * int64(os.Getpagesize())
	}
	return u, nil
}

// processClock returns the CPU time in seconds of a process with all its threads, also those that have ended. It reads
// the process's CPU clock (clock_getcpuclockid(3)), which counts ns where /proc counts 1/100 s: a server that costs
// 0.1 s per GiB would otherwise be measured in steps of several percent.
func processClock(pid int) (float64, error) {
	const scheduler = 2 // of a process: user and system time as the scheduler counts it
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return float64(ts.Nano()) / 1e9, nil
}

func readProcesses() (map[int]procStat, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]procStat{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		s, err := parseProcStat(data)
		if err != nil {
			return nil, err
		}
		all[s.pid] = s
	}
	return all, nil
}

func descends(all map[int]procStat, s procStat, root int) bool {
	for range len(all) {
		if s.pid == root {
			return true
		}
		parent, ok := all[s.parent]
		if !ok {
			return false
		}
		s = parent
	}
	return false
}

// machineTimes is the CPU time of the whole machine since it was started, in seconds.
type machineTimes struct{ busy, idle, steal float64 }

// parseMachineTimes reads the first line of /proc/stat: user nice system idle iowait irq softirq steal ...
func parseMachineTimes(data []byte) (machineTimes, error) {
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return machineTimes{}, fmt.Errorf("malformed first line of /proc/stat: %q", line)
	}
	var v [8]float64
	for i := range v {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return machineTimes{}, fmt.Errorf("malformed first line of /proc/stat: %q", line)
		}
		v[i] = float64(n) / ticksPerSecond
	}
	return machineTimes{busy: v[0] + v[1] + v[2] + v[5] + v[6], idle: v[3] + v[4], steal: v[7]}, nil
}

func readMachineTimes() (machineTimes, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineTimes{}, err
	}
	return parseMachineTimes(data)
}

// since returns the busy seconds since an earlier reading and the fraction of time that was stolen.
func (m machineTimes) since(before machineTimes) (busy, steal float64) {
	busy = m.busy - before.busy
	stolen := m.steal - before.steal
	if all := busy + stolen + m.idle - before.idle; all > 0 {
		steal = stolen / all
	}
	return busy, steal
}
