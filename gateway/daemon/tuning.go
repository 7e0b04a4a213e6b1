package daemon

import (
	"sluice/gateway"
	"sluice/gateway/config"
	"sluice/nbd"
)

// serverConfig is the NBD server's part of the configuration, without
// certificates.
func serverConfig(c *config.Config) nbd.ServerConfig {
	cfg := nbd.ServerConfig{MaxConnections: c.MaxConnections, BusyPoll: c.BusyPoll.Std()}
	if c.BusyPoll == 0 {
		cfg.BusyPoll = -1 // 0 is the server's default
	}
	switch c.TLS.Mode {
	case "required":
		cfg.TLSMode = nbd.TLSForced
	case "optional":
		cfg.TLSMode = nbd.TLSOptional
	case "":
		if c.TLS.Cert != "" {
			cfg.TLSMode = nbd.TLSForced
		}
	}
	return cfg
}

// tuning is what can be changed while the daemon runs.
func tuning(c *config.Config) gateway.Tuning {
	return gateway.Tuning{SlowRequest: c.SlowRequest.Std(), DrainTimeout: c.ShutdownTimeout.Std()}
}
