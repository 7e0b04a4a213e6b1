// Package hold keeps requests waiting while the storage below is away.
package hold
