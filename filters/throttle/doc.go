// Package throttle bounds the requests and bytes a second that pass a Device.
package throttle
