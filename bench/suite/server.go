package suite

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"sluice/bench/report"
)

// Server is a server under test and how it is started. The fields of Command are substituted one by one and run without
// a shell, so what the report prints is what ran.
type Server struct {
	report.Server
	pkg      string   // Debian package of the program, or the make target that builds it
	version  []string // command whose first line of output is the version
	only     []string // workloads that it is put under; empty: all that suit its kind
	config   string   // what the file {config} holds; empty: the server needs none
	export   string   // the export's name; empty: the default export
	onto     bool     // of a server in FUSE: it mounts on the file itself, which has to be there before
	Optional bool     // runs only when named
}

// onFile tells whether work on the server changes the image.
func (s Server) onFile() bool {
	return s.Kind != report.Mem && s.Kind != report.Null
}

// past tells whether clients work on a file past the page cache of their own side.
func (s Server) past() bool { return s.Kind == report.Fuse || s.Kind == report.Direct }

// takes tells whether the server is put under the workload.
func (s Server) takes(w Workload) bool {
	return w.suits(s.Kind) && (len(s.only) == 0 || slices.Contains(s.only, w.Name))
}

// exporter serves the image to the programs that copy: one that neither of them belongs to.
func exporter() Server {
	all := Servers()
	return all[slices.IndexFunc(all, func(s Server) bool { return s.Name == "nbdkit-file" })]
}

const copyNote = "--flush makes nbdcopy end when the copy is durable, as sluice copy always does; otherwise both run as by default."

const localCommand = "fio --ioengine=io_uring --filename={file} --invalidate=0 (otherwise as below)"

const directCommand = "fio --ioengine=libaio --direct=1 --filename={file} --invalidate=0 (otherwise as below)"

const fuseNote = "fio works on {mount}/disk as direct does on the image."

const daemonConfig = `nbd = ["unix:{socket}"]
api = ["unix:{socket}.api"]
state = "{config}.state"

[[export]]
name = "disk"
url = "{file}"
`

const goNBDNote = "the server package of github.com/pojntfx/go-nbd, a naive baseline: it has no flush, so its writes " +
	"are durable at disconnect only and its write figures cannot be compared with the others' as equals."

// Servers lists all known servers in the order of the tables.
func Servers() []Server {
	qsd := "qemu-storage-daemon --blockdev driver=file,node-name=disk,filename={file},aio=%s " +
		"--nbd-server addr.type=unix,addr.path={socket} --export type=nbd,id=export,node-name=disk,name=,writable=on"
	qsdFUSE := "qemu-storage-daemon --blockdev driver=file,node-name=disk,filename={file},aio=%s " +
		"--export type=fuse,id=export,node-name=disk,mountpoint={mount}/disk,writable=on"
	qnbd := "qemu-nbd --persistent --shared=16 --format=raw --cache=writeback --aio=%s --socket={socket} {file}"
	ours, qemu := []string{"{sluice}", "--version"}, []string{"qemu-nbd", "--version"}
	storage, kit := []string{"qemu-storage-daemon", "--version"}, []string{"nbdkit", "--version"}
	entry := func(name, command, pkg string, version []string) Server {
		return Server{Server: report.Server{Name: name, Kind: report.File, Command: command}, pkg: pkg, version: version}
	}
	list := []Server{
		entry("sluice", "{sluice} serve {file} --nbd unix:{socket}", "make build", ours),
		entry("qemu-nbd", fmt.Sprintf(qnbd, "threads"), "qemu-utils", qemu),
		entry("qemu-nbd-uring", fmt.Sprintf(qnbd, "io_uring"), "qemu-utils", qemu),
		entry("qsd-uring", fmt.Sprintf(qsd, "io_uring"), "qemu-system-common", storage),
		entry("qsd-threads", fmt.Sprintf(qsd, "threads"), "qemu-system-common", storage),
		entry("nbdkit-file", "nbdkit --foreground --unix={socket} file {file}", "nbdkit", kit),
		entry("go-nbd", "{bench} gonbd {socket} {file}", "", nil),
		entry("local", localCommand, "fio", nil),
		entry("sluice-mem", "{sluice} serve mem://{size} --nbd unix:{socket}", "make build", ours),
		entry("nbdkit-memory", "nbdkit --foreground --unix={socket} memory {size}", "nbdkit", kit),
		entry("nbdkit-null", "nbdkit --foreground --unix={socket} null {size}", "nbdkit", kit),
		entry("sluice-metrics", "{sluice} serve {file} --nbd unix:{socket} --metrics 127.0.0.1:0", "make build", ours),
		entry("sluice-daemon", "{sluice} daemon --config {config}", "make build", ours),
		entry("sluice-fuse", "{sluice} serve {file} --fuse {mount} --name disk", "make build", ours),
		entry("sluice-pass", "{sluice} serve {file} --fuse {mount} --name disk --fuse-passthrough", "make build", ours),
		entry("qsd-fuse", fmt.Sprintf(qsdFUSE, "threads"), "qemu-system-common", storage),
		entry("qsd-fuse-uring", fmt.Sprintf(qsdFUSE, "io_uring"), "qemu-system-common", storage),
		entry("direct", directCommand, "fio", nil),
		entry("sluice-copy", "{sluice} copy {from} {to}", "make build", ours),
		entry("nbdcopy", "nbdcopy --flush {from} {to}", "libnbd-bin", nil),
		entry("sluice-nfs", "{sluice} serve {nfs} --nbd unix:{socket}", "make build", ours),
		entry("sluice-nfs3", "{sluice} serve {nfs}?vers=3 --nbd unix:{socket}", "make build", ours),
		entry("qnbd-nfs", "qemu-nbd --persistent --shared=16 --format=raw --cache=writeback --socket={socket} {libnfs}", "qemu-utils", qemu),
	}
	for i := range list {
		s := &list[i]
		switch s.Name {
		case "qemu-nbd-uring", "qsd-threads":
			s.Optional = true
		case "local":
			s.Kind = report.Local
			s.Note = "no server: fio works on the image itself, which shows what the file system allows."
		case "go-nbd":
			s.Note = goNBDNote
		case "sluice-mem", "nbdkit-memory":
			s.Kind = report.Mem
		case "nbdkit-null":
			s.Kind = report.Null
			s.Note = "has no data; it shows how fast client and socket are."
		case "sluice-metrics":
			s.Against, s.only = "sluice", []string{"rr1", "rr16", "rr64"}
		case "sluice-daemon":
			s.Against, s.only = "sluice", []string{"sr1", "rr1", "rr16", "rr64"}
			s.config, s.export = daemonConfig, "disk"
			s.Note = "its configuration is " + strings.Join(strings.Fields(daemonConfig), " ")
		case "sluice-fuse", "sluice-pass", "qsd-fuse", "qsd-fuse-uring":
			s.Kind, s.Note = report.Fuse, fuseNote
			s.onto = !strings.HasPrefix(s.Name, "sluice")
		case "direct":
			s.Kind = report.Direct
			s.Note = "no server: fio works on the image itself past the page cache, as it does on the FUSE files. Its data come from the disk."
		case "sluice-copy", "nbdcopy":
			s.Kind = report.Copier
			s.Note = map[string]string{"nbdcopy": copyNote}[s.Name]
		case "sluice-nfs", "sluice-nfs3", "qnbd-nfs":
			s.Kind, s.Note, s.Optional = report.NFS, nfsNote, true
		}
	}
	return list
}

// Choose returns the servers named in a list separated by commas, in their usual order (an empty list means all that
// are not optional), plus the custom ones, given as "name=command". A custom server of a known name replaces it.
func Choose(list string, custom []string) ([]Server, error) {
	all := Servers()
	var added []string
	for _, c := range custom {
		s, err := parseCustom(c)
		if err != nil {
			return nil, err
		}
		added = append(added, s.Name)
		if i := slices.IndexFunc(all, func(k Server) bool { return k.Name == s.Name }); i >= 0 {
			all[i] = s
		} else {
			all = append(all, s)
		}
	}
	var names, known []string
	if list != "" {
		names = strings.Split(list, ",")
	}
	var out []Server
	for _, s := range all {
		known = append(known, s.Name)
		wanted := slices.Contains(names, s.Name) || list == "" && !s.Optional
		if wanted || slices.Contains(added, s.Name) {
			out = append(out, s)
		}
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("unknown server %q; there are %s", n, strings.Join(known, ", "))
		}
	}
	return out, nil
}

func parseCustom(text string) (Server, error) {
	name, command, ok := strings.Cut(text, "=")
	if !ok || name == "" || strings.TrimSpace(command) == "" {
		return Server{}, fmt.Errorf("server %q is not of the form name=command", text)
	}
	s := Server{Server: report.Server{Name: name, Kind: report.Mem, Command: command}}
	mounts := strings.Contains(command, "{mount}")
	switch {
	case !mounts && !strings.Contains(command, "{socket}"):
		return Server{}, fmt.Errorf("the command of server %s does not say where {socket} goes, or {mount}", name)
	case mounts:
		s.Kind, s.onto = report.Fuse, strings.Contains(command, "{mount}/"+mountedName)
	case strings.Contains(command, "{nfs}"), strings.Contains(command, "{libnfs}"):
		s.Kind, s.Note = report.NFS, nfsNote
	case strings.Contains(command, "{file}"):
		s.Kind = report.File
	}
	return s, nil
}

// Places are what the placeholders of a command stand for.
type Places struct {
	Sluice string // our program
	Bench  string // this program, which holds the go-nbd server
	Socket string
	File   string
	Size   int64
	Config string // its configuration
	Mount  string // folder for a server in FUSE
	NFS    string // URL of the image on an NFS server
	LibNFS string // the same for libnfs

	From, To string // of a program that copies
}

// Args returns the command with everything filled in.
func (s Server) Args(p Places) []string { return p.fill(strings.Fields(s.Command)) }

func (p Places) fill(fields []string) []string {
	r := strings.NewReplacer("{sluice}", p.Sluice, "{bench}", p.Bench, "{socket}", p.Socket, "{file}", p.File,
		"{size}", strconv.FormatInt(p.Size, 10), "{from}", p.From, "{to}", p.To,
		"{config}", p.Config, "{mount}", p.Mount, "{nfs}", p.NFS, "{libnfs}", p.LibNFS)
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = r.Replace(f)
	}
	return out
}

// Lookup fails when a program that the plan needs is not there, and says where it comes from.
func (p Plan) Lookup() error {
	for _, s := range p.Servers {
		program := s.Args(Places{Sluice: p.Sluice, Bench: p.Bench})[0]
		if err := lookup(program, s.pkg, s.Name); err != nil {
			return err
		}
		helper, from := "", ""
		switch s.Kind {
		case report.Mem:
			helper, from = "nbdcopy", "libnbd-bin"
		case report.Copier:
			helper, from = "nbdkit", exporter().pkg
		case report.Fuse:
			if err := lookupFUSE(s.Name); err != nil {
				return err
			}
			continue
		case report.NFS:
			if err := lookupNFS(s.Name); err != nil {
				return err
			}
			continue
		default:
			continue
		}
		if err := lookup(helper, from, s.Name); err != nil {
			return err
		}
	}
	for _, w := range p.Workloads {
		program, pkg := "fio", "fio"
		if w.from != "" {
			continue // its programs are the servers
		}
		if w.Copy {
			program, pkg = "nbdcopy", "libnbd-bin"
		}
		if err := lookup(program, pkg, w.Name); err != nil {
			return err
		}
	}
	return nil
}

func lookup(program, pkg, user string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	switch {
	case pkg == "":
		return fmt.Errorf("%s needs %s, which is not there", user, program)
	case strings.HasPrefix(pkg, "make "):
		return fmt.Errorf("%s needs %s, which is not there; build it with: %s (or leave it out with --servers)", user, program, pkg)
	}
	return fmt.Errorf("%s needs %s, which is not there; install it with: apt-get install %s", user, program, pkg)
}

// Documented returns the server as the report shows it: with our program's path, and with what changes as placeholders.
func (s Server) Documented(sluice string) report.Server {
	out := s.Server
	out.Command = strings.NewReplacer("{sluice}", sluice, "{bench}", "bench").Replace(out.Command)
	return out
}
