// Package gateway joins devices and exporters: it puts a device at network
// addresses, watches over it, and takes it down in order. The commands call it.
//
// A [Single] serves one device. It owns the device and the listeners from
// NewSingle to the end of Run, and a goroutine for each listener, which Run
// waits for.
package gateway
