// Package nfsstat names the status codes of NFSv3 and NFSv4 and says what kind of
// failure each is. Both versions of the client use it. It holds no state.
package nfsstat
