"""Chinese personal names: a surname and one or two characters, after words that announce a name or before a title."""

from __future__ import annotations

from fulmen_safety.pattern import Node, Pattern, chars, either, literal, maybe, repeat, seq

#: The surnames of some 95 of 100 people in mainland China.
_SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊"
    "金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂丛焦向柳邢路岳齐梅莫庄"
    "辛管祝左涂谷祁耿牟卜路詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边"
)
_DOUBLE_SURNAMES = (
    "欧阳",
    "上官",
    "司马",
    "诸葛",
    "司徒",
    "东方",
    "皇甫",
    "尉迟",
    "令狐",
    "慕容",
    "夏侯",
    "端木",
    "公孙",
)

#: Characters that follow a name more often than they are part of one.
_NOT_IN_NAMES = (
    "的是在了和与及也都就有说要想去来住到被把给对从向于今现已曾将可会能请您你我他她它这那哪电手身邮联地号码男性年岁出先女老同叫为不没很因所以而但并或者"
    "时候后前里外上下什么怎吗呢吧啊呀哦月日元个位人们使用提供购买收发打写看做问答让比跟当过得着一二三四五六七八九十"
)

_ANNOUNCING = (
    "姓名", "名字叫", "名字是", "我叫", "名叫", "叫做", "联系人",
    "收件人", "收货人", "寄件人", "户名", "持卡人", "经办人", "法定代表人",
    "患者", "申请人", "当事人", "负责人", "被告人", "原告", "被告", "客户", "员工", "学生", "本人",
)  # fmt: skip
_TITLES = (
    "先生", "女士", "小姐", "太太", "老师", "医生", "大夫", "教授",
    "经理", "主任", "同学", "律师", "博士", "院长", "局长",
    "处长", "科长", "总监", "护士", "警官", "师傅", "阿姨", "叔叔",
)  # fmt: skip


def _han_without(left_out: str) -> Node:
    """One Han character that is none of `left_out`."""
    ranges, start = [], 0x4E00
    for code in sorted({ord(char) for char in left_out}):
        if code > start:
            ranges.append(f"{chr(start)}-{chr(code - 1)}")
        start = code + 1
    return chars("".join([*ranges, f"{chr(start)}-\\u9fff"]))


def chinese_name() -> list[Pattern]:
    """``我叫王小明``, ``联系人：欧阳娜娜``, ``李明华先生``. A title alone (``王先生``) names too few to count."""
    surname = either(*map(literal, _DOUBLE_SURNAMES), chars("".join(dict.fromkeys(_SURNAMES))))
    given = _han_without(_NOT_IN_NAMES)
    announcing = seq(
        either(*map(literal, _ANNOUNCING)), maybe(either(literal("是"), literal("为"))), repeat(chars(" :：\\t"), 0, 2)
    )
    title = either(*map(literal, _TITLES))

    def announced(_: str) -> float:
        return 0.9

    def before_title(found: str) -> float:
        return 0.85 if not found.endswith(("总", "副", "班")) else 0.0

    middle_dot = seq(repeat(given, 2, 5), literal("·"), repeat(given, 2, 6))
    name = either(middle_dot, seq(surname, repeat(given, 1, 2)))
    return [
        Pattern("person", name, "|".join(_ANNOUNCING), context=announcing, accept=announced),
        Pattern("person", seq(surname, repeat(given, 1, 2), title), "|".join(_TITLES), accept=before_title),
    ]
