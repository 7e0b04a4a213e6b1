// Package metrics makes Sluice observable by Prometheus: it counts what exports
// do, and serves the counts, a health page and profiles over HTTP.
//
// A program makes one [Registry], asks it for an [Export] per disk that it
// serves, gives that to package nbd as the disk's Observer, and calls
// [Registry.Serve]. What comes through FUSE and what passes a layer of a disk's
// stack is counted by the same machinery, a [Requests] each; their Observers have
// operations of their own, which whoever joins the packages translates. What an
// export is doing is asked for at each scrape ([Gauges]). Every metric is described
// in docs/metrics.md.
//
// # Cost
//
// Observing is on the data path, where a whole request takes a few
// microseconds and an atomic addition already some ten nanoseconds. So a
// request is counted by one compare-and-swap (tally.go), without allocation,
// and connections are spread over shards that share no cache line. What a
// scrape shows is computed when it is asked for (collect.go).
//
// # Who owns what
//
// Registry.mu guards the table of exports and that of health checks. Each tally
// has a mutex of its own for its wide counters; the packed words beside them are
// changed without it, and read under it; Requests.mu guards which tallies
// there are, Export.mu which Requests. No lock is held while another one is
// taken, and none while a health check or a function for gauges runs. A [Server]
// owns the goroutine that accepts connections and those of the connections; its
// Close waits for them.
package metrics
