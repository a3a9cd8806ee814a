/* Loaded by LD_PRELOAD into the gateway: a resolver that means harm, and a public address that can be reached.
 *
 * Names under `.evil` have the addresses that their first label says; `turn.evil` has a public one the first time and
 * loopback from then on. Connections to the public address go to ATTACK_PORT on 127.0.0.1, those to its neighbour to
 * nobody. Everything else is as ever.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PUBLIC "93.184.216.34"
#define DEAD "93.184.216.35"

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static int literal(look_up *next, const char *ip, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  struct addrinfo wanted = {0};
  if (hints) wanted = *hints;
  wanted.ai_flags = AI_NUMERICHOST;
  wanted.ai_family = AF_UNSPEC;
  return next(ip, service, &wanted, found);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  static atomic_int turns;
  look_up *next = (look_up *)dlsym(RTLD_NEXT, "getaddrinfo");
  const char *end = name ? strstr(name, ".evil") : NULL;
  if (!end || end[5]) return next(name, service, hints, found);
  if (!strcmp(name, "turn.evil")) return literal(next, turns++ ? "127.0.0.1" : PUBLIC, service, hints, found);
  if (!strcmp(name, "mixed.evil")) {
    struct addrinfo *last, *inner;
    int fault = literal(next, DEAD, service, hints, found);
    if (fault) return fault;
    for (last = *found; last->ai_next; last = last->ai_next) {}
    fault = literal(next, "127.0.0.1", service, hints, &inner);
    if (!fault) last->ai_next = inner;
    return 0;
  }
  static const struct { const char *name, *ip; } book[] = {
    {"public.evil", PUBLIC}, {"loopback.evil", "127.0.0.1"}, {"mapped.evil", "::ffff:127.0.0.1"}, {"six.evil", "::1"},
    {"sixtofour.evil", "2002:7f00:1::1"}, {"nat64.evil", "64:ff9b::7f00:1"}, {"metadata.evil", "169.254.169.254"},
    {"private.evil", "10.0.0.1"}, {"unspecified.evil", "0.0.0.0"},
  };
  for (size_t at = 0; at < sizeof book / sizeof *book; at++)
    if (!strcmp(name, book[at].name)) return literal(next, book[at].ip, service, hints, found);
  return EAI_NONAME;
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  int (*next)(int, const struct sockaddr *, socklen_t) = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
  if (address && address->sa_family == AF_INET) {
    struct sockaddr_in to = *(const struct sockaddr_in *)address;
    int public = to.sin_addr.s_addr == inet_addr(PUBLIC), dead = to.sin_addr.s_addr == inet_addr(DEAD);
    if (public || dead) {
      const char *port = getenv("ATTACK_PORT");
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      to.sin_port = htons(dead || !port ? 1 : atoi(port));
      return next(fd, (struct sockaddr *)&to, sizeof to);
    }
  }
  return next(fd, address, length);
}
