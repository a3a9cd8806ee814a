/* Loaded into relays by LD_PRELOAD. Tor ignores OutboundBindAddress for loopback targets, so every relay would leave
 * from 127.0.0.1; here each TCP connection to 127/8 is bound first: to TESTNET_BIND_OR towards relays (so that they see
 * each other's addresses) and to TESTNET_BIND towards anything else. TESTNET_NODELAY turns Nagle off, which on loopback
 * meets delayed ACKs and stalls for 40 ms at random. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

int socket(int domain, int type, int protocol) {
  static int (*next)(int, int, int);
  if (!next) next = dlsym(RTLD_NEXT, "socket");
  int fd = next(domain, type, protocol), one = 1;
  if (fd >= 0 && domain == AF_INET && (type & 0xf) == SOCK_STREAM && getenv("TESTNET_NODELAY"))
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

static int is_tcp(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  static int (*next)(int, const struct sockaddr *, socklen_t);
  if (!next) next = dlsym(RTLD_NEXT, "connect");
  if (address && address->sa_family == AF_INET && is_tcp(fd)) {
    const struct sockaddr_in *to = (const void *)address;
    int port = ntohs(to->sin_port), one = 1;
    const char *bind_to = getenv(port == TESTNET_OR_PORT || port == TESTNET_DIR_PORT ? "TESTNET_BIND_OR" : "TESTNET_BIND");
    if (bind_to && ntohl(to->sin_addr.s_addr) >> 24 == 127) {
      struct sockaddr_in from = {.sin_family = AF_INET};
      inet_pton(AF_INET, bind_to, &from.sin_addr);
      setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
      bind(fd, (void *)&from, sizeof from);
    }
  }
  return next(fd, address, length);
}
