/* A library of CUPTI's name whose subscription is refused, as CUPTI does when somebody else has subscribed. */
#define CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED 39

__attribute__((visibility("default"))) int cuptiSubscribe(void **subscriber, void *callback, void *user);

int cuptiSubscribe(void **subscriber, void *callback, void *user)
{
    (void)subscriber, (void)callback, (void)user;
    return CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
}
