package nfs

import (
	"testing"
	"time"

	"sluice/backends/location"
	"sluice/backends/nfs/rpc"
	"sluice/block"
)

func TestParseConfig(t *testing.T) {
	cfg := config(t, "nfs://[::1]:2050//a%20b/./c.img?vers=4.1&nconnect=4&uid=36&gid=37&reconnect=5s&timeout=2s&silence=3s"+
		"&rsize=64K&wsize=4096&keep=1M&share=on&mountport=20048&portmap=112")
	if cfg.Host != "::1" || cfg.Port != 2050 || cfg.Path != "/a b/c.img" || cfg.Version != "4.1" || cfg.Connections != 4 {
		t.Errorf("%+v", cfg)
	}
	if cfg.Cred.UID != 36 || cfg.Cred.GID != 37 || cfg.Cred.Groups != nil || cfg.Share != location.On {
		t.Errorf("%+v", cfg)
	}
	if cfg.Reconnect != 5*time.Second || !cfg.ReconnectAsked || cfg.Timeout != 2*time.Second || cfg.Silence != 3*time.Second {
		t.Errorf("%+v", cfg)
	}
	if cfg.ReadSize != 65536 || cfg.WriteSize != 4096 || cfg.Keep != 1<<20 || cfg.MountPort != 20048 || cfg.PortmapPort != 112 {
		t.Errorf("%+v", cfg)
	}
	if got := cfg.url(cfg.Path); got != "nfs://[::1]:2050/a b/c.img" {
		t.Error(got)
	}
}

func TestDefaults(t *testing.T) {
	cfg := config(t, "nfs://filer/a.img")
	if cfg.Reconnect != 30*time.Second || cfg.ReconnectAsked || cfg.Connections != 1 || cfg.Keep != 64<<20 || cfg.Port != 0 {
		t.Errorf("%+v", cfg)
	}
	if own := rpc.ProcessCred(); cfg.Cred.UID != own.UID || cfg.Cred.GID != own.GID || cfg.Cred.Machine != own.Machine {
		t.Errorf("%+v", cfg.Cred)
	}
	if config(t, "nfs://filer/a?reconnect=off").Reconnect != 0 || config(t, "nfs://filer/a?reconnect=forever").Reconnect >= 0 {
		t.Error("reconnect")
	}
	if config(t, "nfs://filer").Path != "/" {
		t.Error("path")
	}
}

func TestRefusedURLs(t *testing.T) {
	for url, word := range map[string]string{
		"nfs:///a":                   "host",
		"nfs://filer:0/a":            "port",
		"nfs://filer:70000/a":        "port",
		"nfs://root:secret@filer/a":  "uid and gid",
		"nfs://filer/a/../b":         `".."`,
		"nfs://filer/a%00b":          "NUL",
		"nfs://filer/a?vers=5":       "vers=5",
		"nfs://filer/a?nconnect=17":  "nconnect=17: want a number from 1 to 16",
		"nfs://filer/a?nconnect=0":   "nconnect",
		"nfs://filer/a?uid=-1":       "uid",
		"nfs://filer/a?uid=root":     "uid",
		"nfs://filer/a?reconnect=0s": "reconnect",
		"nfs://filer/a?rsize=2M":     "rsize",
		"nfs://filer/a?wsize=1K":     "wsize",
		"nfs://filer/a?keep=4K":      "keep",
		"nfs://filer/a?share=maybe":  "share",
		"nfs://filer/a?port=3":       `unknown parameter "port"`,
		"nfs://filer/a?uid=1&uid=2":  "given 2 times",
	} {
		_, err := ParseConfig(url)
		if block.KindOf(err) != block.Invalid || !says(err, word, "nfs://") || says(err, "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := ParseConfig("nfs://filer/a?vers=4.0"); block.KindOf(err) != block.Unsupported || !says(err, "no sessions") {
		t.Error(err)
	}
}
