package nfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"

	"sluice/backends/nfs/remote"
	"sluice/backends/nfs/v3"
	"sluice/backends/nfs/v4"
	"sluice/block"
)

// version is a protocol version: how a client of it is made. dial fails with
// Unsupported where the server does not speak it, and only there.
type version struct {
	name string
	dial func(ctx context.Context, cfg *Config) (remote.Client, error)
}

// versions are those that there are, best first.
var versions = []version{
	{"4.2", dial42},
	{"4.1", dial41},
	{"3", dial3},
}

func dial42(ctx context.Context, cfg *Config) (remote.Client, error) { return dial4(ctx, cfg, 2) }
func dial41(ctx context.Context, cfg *Config) (remote.Client, error) { return dial4(ctx, cfg, 1) }

func dial3(ctx context.Context, cfg *Config) (remote.Client, error) {
	client, err := v3.Dial(ctx, v3.Config{
		Host: cfg.Host, Port: cfg.Port, MountPort: cfg.MountPort, PortmapPort: cfg.PortmapPort, Path: cfg.Path,
		Connections: cfg.Connections, Cred: cfg.Cred, Patience: cfg.Reconnect, Silence: cfg.Silence, Timeout: cfg.Timeout,
		MaxIO: MaxIO, Logger: slog.Default(),
	})
	if err != nil {
		return nil, err
	}
	return client, nil
}

func dial4(ctx context.Context, cfg *Config, minor uint32) (remote.Client, error) {
	client, err := v4.Dial(ctx, v4.Config{
		Host: cfg.Host, Port: cfg.Port, Minor: minor, Only: true,
		Connections: cfg.Connections, Cred: cfg.Cred, Patience: cfg.Reconnect, Silence: cfg.Silence, Timeout: cfg.Timeout,
		MaxIO: MaxIO, Logger: slog.Default(),
	})
	if err != nil {
		return nil, err // not a nil *v4.Client in an interface
	}
	return client, nil
}

func known(name string) bool {
	for _, v := range versions {
		if v.name == name {
			return true
		}
	}
	return false
}

// wanted reports whether the configuration lets a version be used.
func (cfg *Config) wanted(version string) bool {
	return cfg.Version == "" || cfg.Version == version || cfg.Version == "4" && strings.HasPrefix(version, "4.")
}

// dial makes a client of the best version that the server speaks. It goes on to the
// next one only where the server says that it does not speak this one, or where
// nobody listens at the port that needs no asking for (NFSv3 asks the portmapper):
// a server that is slow or refuses us would do so in every version, and what is
// missing afterwards would be hard to see.
func dial(ctx context.Context, cfg *Config, versions []version) (remote.Client, error) {
	var refusals []string
	var unheard error
	for _, v := range versions {
		if !cfg.wanted(v.name) || v.dial == nil || unheard != nil && v.name != "3" {
			continue
		}
		client, err := v.dial(ctx, cfg)
		switch {
		case err == nil:
			return client, nil
		case unheard != nil:
			return nil, unheard
		case errors.Is(err, syscall.ECONNREFUSED) && cfg.Port == 0 && v.name != "3":
			unheard = err
		case block.KindOf(err) != block.Unsupported:
			return nil, err
		default:
			refusals = append(refusals, fmt.Sprintf("%s: %v", v.name, err))
		}
	}
	if unheard != nil {
		return nil, unheard
	}
	if len(refusals) == 0 {
		return nil, fmt.Errorf("this program does not speak NFS %s: %w", cfg.Version, block.Unsupported)
	}
	return nil, fmt.Errorf("the server speaks no version of NFS that can be used (%s): %w", strings.Join(refusals, ", "), block.Unsupported)
}
